//! Certificates with their keys, in the folders of certbot, acme.sh, lego, Caddy and the like.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::output::now;
use super::stream::entries;
use crate::pki;

/// Folders below each other that are looked into: `caddy/certificates/CA/NAME` and a bit more.
const DEEPEST: usize = 6;

/// Files with a chain and its key, and what the certificate is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) name: Option<String>,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// All pairs in a folder and those below it, by name. What is only half there, or a link to nothing, is among them: that
/// it cannot be read is told then.
pub(super) fn find(folder: &Path) -> anyhow::Result<Vec<Files>> {
    let mut found = Vec::new();
    walk(folder, 0, &mut found)?;
    if found.is_empty() {
        bail!(
            "no folder in {} holds a certificate with its key as certbot, acme.sh, lego or Caddy keep them: fullchain.pem and privkey.pem, fullchain.cer and NAME.key, NAME.crt and NAME.key; give others by --cert and --key",
            folder.display()
        );
    }
    Ok(found)
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<Files>) -> anyhow::Result<()> {
    let all = entries(folder)?;
    let has = |name: &str| all.iter().any(|path| path.file_name() == Some(OsStr::new(name)));
    // A relative `.` has no name of its own.
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let own = whole.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let pair = |name: &str, cert: &str, key: &str| Files {
        name: Some(resource_name(name)),
        cert: folder.join(cert),
        key: folder.join(key),
    };
    if has("fullchain.pem") {
        found.push(pair(own, "fullchain.pem", "privkey.pem"));
    } else if has("fullchain.cer") {
        let domain = own.strip_suffix("_ecc").unwrap_or(own);
        // acme.sh keeps RSA in the folder beside.
        let has_both = domain != own && whole.with_file_name(domain).join("fullchain.cer").exists();
        found.push(pair(
            if has_both { own } else { domain },
            "fullchain.cer",
            &format!("{domain}.key"),
        ));
    } else {
        for stem in all.iter().filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".crt")) {
            let (key, about) = (format!("{stem}.key"), format!("{stem}.json"));
            if !stem.ends_with(".issuer") && (has(&key) || has(&about)) {
                let name = if stem == "tls" { own } else { stem };
                found.push(pair(name, &format!("{stem}.crt"), &key));
            }
        }
    }
    for below in all.iter().filter(|path| depth < DEEPEST && path.is_dir()) {
        walk(below, depth + 1, found)?;
    }
    Ok(())
}

/// A name as resources have them, from that of a file or folder.
fn resource_name(text: &str) -> String {
    let lower = text.to_lowercase();
    let wildcard = ["*.", "_.", "wildcard_."].iter().find_map(|star| lower.strip_prefix(star));
    let spelled = wildcard.map_or_else(|| lower.clone(), |rest| format!("wildcard.{rest}"));
    let is_fine = |character: char| character.is_ascii_alphanumeric() || character == '.';
    let fine: String = spelled.chars().map(|one| if is_fine(one) { one } else { '-' }).collect();
    let parts = fine.split('.').map(|part| part.trim_matches('-')).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(".")
}

/// A certificate with its key, as manifests.
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) names: BTreeSet<String>,
    secret: Value,
    certificate: Value,
}

impl Pair {
    /// Reads both files. The issuer will renew it.
    pub(super) fn read(files: &Files, issuer: (&str, &str)) -> anyhow::Result<Self> {
        let (chain, private) = (read(&files.cert)?, read(&files.key)?);
        // Parsed here as well, for the names and the kind of key.
        let adopted = pki::adopt(&chain, &private, now())
            .with_context(|| format!("{} cannot be imported", files.cert.display()))?;
        let first = adopted.names.first().map(String::as_str).unwrap_or_default();
        let name = match &files.name {
            Some(name) => name.clone(),
            None if first.parse::<IpAddr>().is_ok() => {
                resource_name(&format!("ip-{first}")).replace('.', "-")
            }
            None => resource_name(first),
        };
        let certificates = pki::certificates(&adopted.chain)?;
        let look = pki::look(certificates.first().map(Vec::as_slice).unwrap_or_default())?;
        let (algorithm, size) = match look.key.split_once(' ') {
            Some(("RSA", size)) => ("RSA", size.parse::<u32>().ok()),
            _ => ("ECDSA", look.key.rsplit_once('-').and_then(|(_, size)| size.parse().ok())),
        };
        let (addresses, dns_names): (Vec<&String>, Vec<&String>) =
            adopted.names.iter().partition(|name| name.parse::<IpAddr>().is_ok());
        let secret_name = format!("{name}-tls");
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": secret_name},
            "data": {"tls.crt": STANDARD.encode(adopted.chain.as_bytes()), "tls.key": STANDARD.encode(private.as_bytes())},
        });
        let certificate = json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": name},
            "spec": {
                "secretName": secret_name, "dnsNames": dns_names, "ipAddresses": addresses,
                "issuerRef": {"kind": issuer.0, "name": issuer.1},
                "privateKey": {"algorithm": algorithm, "size": size},
            },
        });
        Ok(Self { name, names: adopted.names.iter().cloned().collect(), secret, certificate })
    }

    /// Both manifests.
    pub(super) fn manifests(&self) -> String {
        format!("{}\n---\n{}\n", self.secret, self.certificate)
    }
}

fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
        let shown = path.display();
        match fs::read_link(path) {
            Ok(target) if !path.exists() => {
                anyhow::anyhow!("{shown} is a link to {}, which is not there", target.display())
            }
            _ => anyhow::Error::from(error).context(format!("{shown} cannot be read")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_every_client_are_known() {
        let home = tempfile::tempdir().unwrap();
        for file in [
            "live/README",
            "live/my_cert/fullchain.pem",
            "live/my_cert/privkey.pem",
            "live/my_cert/cert.pem",
            "archive/my_cert/fullchain1.pem",
            "archive/my_cert/privkey1.pem",
            "acme.sh/account.conf",
            "acme.sh/ca/acme-v02.api.letsencrypt.org/directory/account.key",
            "acme.sh/a.example.com_ecc/fullchain.cer",
            "acme.sh/a.example.com_ecc/a.example.com.key",
            "acme.sh/a.example.com_ecc/a.example.com.cer",
            "acme.sh/a.example.com_ecc/ca.cer",
            "acme.sh/b.example.com/fullchain.cer",
            "acme.sh/b.example.com/b.example.com.key",
            "acme.sh/b.example.com_ecc/fullchain.cer",
            "acme.sh/b.example.com_ecc/b.example.com.key",
            "acme.sh/*.c.example.com_ecc/fullchain.cer",
            "acme.sh/*.c.example.com_ecc/*.c.example.com.key",
            "lego/accounts/acme/me@example.com/keys/me@example.com.key",
            "lego/certificates/_.d.example.com.crt",
            "lego/certificates/_.d.example.com.issuer.crt",
            "lego/certificates/_.d.example.com.key",
            "lego/certificates/_.d.example.com.json",
            "lego/certificates/csr.example.com.crt",
            "lego/certificates/csr.example.com.json",
            "caddy/certificates/acme-v02.api.letsencrypt.org-directory/e.example.com/e.example.com.crt",
            "caddy/certificates/acme-v02.api.letsencrypt.org-directory/e.example.com/e.example.com.key",
            "caddy/certificates/acme-v02.api.letsencrypt.org-directory/wildcard_.f.example.com/wildcard_.f.example.com.crt",
            "caddy/certificates/acme-v02.api.letsencrypt.org-directory/wildcard_.f.example.com/wildcard_.f.example.com.key",
            "mounted/web/tls.crt",
            "mounted/web/tls.key",
            "etc/ssl/ca-bundle.crt",
        ] {
            let path = home.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = find(home.path()).unwrap();

        let mut names: Vec<&str> = found.iter().filter_map(|files| files.name.as_deref()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "a.example.com",
                "b.example.com",
                "b.example.com-ecc",
                "csr.example.com",
                "e.example.com",
                "my-cert",
                "web",
                "wildcard.c.example.com",
                "wildcard.d.example.com",
                "wildcard.f.example.com",
            ]
        );
        let both =
            found.iter().find(|files| files.name.as_deref() == Some("b.example.com-ecc")).unwrap();
        assert!(both.key.ends_with("b.example.com_ecc/b.example.com.key"), "{both:?}");
        let words = find(&home.path().join("etc")).unwrap_err().to_string();
        assert!(words.contains("give others by --cert and --key"), "{words}");
    }

    #[test]
    fn a_name_of_a_folder_becomes_one_of_a_resource() {
        for (given, name) in [
            ("my_cert", "my-cert"),
            ("www.Example.com", "www.example.com"),
            ("*.example.com", "wildcard.example.com"),
            ("_.example.com", "wildcard.example.com"),
            ("wildcard_.example.com", "wildcard.example.com"),
            ("example.com-0001", "example.com-0001"),
            ("_odd_.-name", "odd.name"),
        ] {
            assert_eq!(resource_name(given), name, "{given}");
        }
    }

    #[test]
    fn a_link_to_nothing_is_named_with_where_it_leads() {
        let home = tempfile::tempdir().unwrap();
        let link = home.path().join("fullchain.pem");
        std::os::unix::fs::symlink("../../archive/gone/fullchain1.pem", &link).unwrap();

        let found = find(home.path()).unwrap();
        let words = Pair::read(&found[0], ("ClusterIssuer", "le")).err().unwrap().to_string();
        assert!(
            words.ends_with("is a link to ../../archive/gone/fullchain1.pem, which is not there"),
            "{words}"
        );
    }
}
