//! A database on a small disk of its own: a file system in memory, which nobody else sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::installation::{Installation, Program};
use super::process::output;

/// Mounts a disk of this size on `disk`, and goes on as `setpriv` with what follows. In a namespace of its own nobody
/// has to be root to mount, and nothing is left behind.
pub(super) fn mounting(size: &str) -> Command {
    let mut command = Command::new("unshare");
    let mount = "mount -t tmpfs -o size=$0 none disk && exec setpriv \"$@\"";
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", mount, size]);
    command
}

impl Installation {
    /// The database on a disk of its own, of this size (as `mount` takes it), for whatever starts from now on.
    pub fn limit_disk(&mut self, size: &str) {
        let place = self.folder.path().join("disk");
        fs::create_dir(&place).unwrap();
        self.database_url = format!("sqlite://{}", place.join("certwright.db").display());
        self.set("DATABASE_URL", &self.database_url.clone());
        self.disk = Some(size.to_owned());
    }
}

impl Program {
    /// A file as this process sees it.
    pub fn sees(&self, path: &Path) -> PathBuf {
        let path = path.strip_prefix("/").unwrap();
        Path::new("/proc").join(self.child.id().to_string()).join("root").join(path)
    }

    /// Runs another program of ours on the same disks.
    pub fn beside(&self, site: &Installation, arguments: &[&str]) -> Output {
        let pid = self.child.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--user", "--preserve-credentials", "--mount", "--target", &pid]);
        command.arg(env!("CARGO_BIN_EXE_certwright")).args(arguments);
        command
            .current_dir("/")
            .env_clear()
            .env("CERTWRIGHT_SERVER", format!("http://{}", self.api));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(site.environment());
        output(&mut command)
    }
}
