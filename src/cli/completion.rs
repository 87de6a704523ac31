//! `certwright completion`, and the page docs/cli.md.

use clap::{Args, Command, CommandFactory as _, ValueEnum};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use super::complete::VARIABLE;
use super::exit::{Complaint, TABLE};
use super::output::print;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright completion bash > /etc/bash_completion.d/certwright
  certwright completion zsh > \"${fpath[1]}/_certwright\"
  certwright completion fish > ~/.config/fish/completions/certwright.fish

Names of certificates, issuers and namespaces come from the server that the line, the environment or the
profile names, within a second; where it does not answer, commands and flags are completed.")]
pub(super) struct Completion {
    /// Which shell
    #[arg(value_enum)]
    shell: Known,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let shell: &dyn EnvCompleter = match self.shell {
            Known::Bash => &Bash,
            Known::Zsh => &Zsh,
            Known::Fish => &Fish,
        };
        let mut script = Vec::new();
        let name = "certwright";
        shell.write_registration(VARIABLE, name, name, name, &mut script)?;
        print(&String::from_utf8_lossy(&script))
    }
}

/// The help of a command.
pub(super) fn help(words: &[String]) -> Result<String, Complaint> {
    let mut command = super::Cli::command();
    command.build();
    let mut found = &mut command;
    for word in words {
        found = found.find_subcommand_mut(word).ok_or_else(|| {
            Complaint::Usage(format!("there is no command `{word}`; `certwright help` lists them"))
        })?;
    }
    Ok(found.render_help().to_string())
}

const PREAMBLE: &str = "# The command line

`certwright serve` is the service; `migrate`, `backup`, `restore`, `resume`, `config`, `doctor`, `healthcheck` and
`openapi` belong to its machine. Every other command is a client of the HTTP API and runs anywhere. This page is what `certwright help --markdown`
prints.

## Which server, and as whom

`--server` (`CERTWRIGHT_SERVER`) is where, `--api-key-file` (`CERTWRIGHT_API_KEY_FILE`) or `CERTWRIGHT_API_KEY`
who; or a client certificate, over https: `--client-cert` (`CERTWRIGHT_CLIENT_CERT`), `--client-key`
(`CERTWRIGHT_CLIENT_KEY`). An API key that is given too is what counts. A key as an argument can be seen by other users of
the machine. Profiles keep both (`api_key`, `api_key_file`, `client_cert`, `client_key`), in
`~/.config/certwright/config.toml` (or below `$XDG_CONFIG_HOME`); a file with a key in it must be 0600:

```toml
default = \"staging\"

[profiles.staging]
server = \"https://certwright.staging.example.com\"
api_key_file = \"/home/me/.config/certwright/staging.key\"
namespace = \"payments\"
```

Flags beat the environment, which beats the profile (`--profile`, `CERTWRIGHT_PROFILE`).

## Exit status

| status | meaning |
|---|---|
";

/// The page docs/cli.md: every command with its help.
pub(super) fn markdown() -> String {
    let mut out = PREAMBLE.to_owned();
    for (status, meaning) in TABLE {
        out.extend([format!("| {status} | {meaning} |\n")]);
    }
    out.push_str("\nWhat is asked for goes to standard output; warnings, progress and errors go to standard error.\nColour and spinners appear on terminals only, and not with `NO_COLOR`.\n\n## Commands\n");
    let command = super::Cli::command().term_width(100);
    // Global options are described once, at the top.
    let mut command =
        command.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
    command.build();
    chapters(&command, "certwright", &mut out);
    out
}

fn chapters(command: &Command, path: &str, out: &mut String) {
    for one in command.get_subcommands() {
        if one.is_hide_set() || one.get_name() == "help" {
            continue;
        }
        let path = format!("{path} {}", one.get_name());
        let help = one.clone().term_width(100).render_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        out.extend([format!("\n### {path}\n\n```text\n{}\n```\n", help.join("\n").trim_end())]);
        chapters(one, &path, out);
    }
}
