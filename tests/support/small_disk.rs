//! A database on a small disk of its own: a file system in memory, which nobody else sees.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::installation::{Installation, Program};
use super::patience::until;
use super::process::output;

/// Mounts a disk of so many bytes on `disk`, and goes on as `setpriv` with what follows. In a namespace of its own nobody
/// has to be root to mount, and nothing is left behind.
pub(super) fn mounting(size: u64) -> Command {
    let mut command = Command::new("unshare");
    let mount = "mount -t tmpfs -o size=$0 none disk && exec setpriv \"$@\"";
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", mount, &size.to_string()]);
    command
}

impl Installation {
    /// The database on a disk of its own, of so many bytes, for whatever starts from now on.
    pub fn limit_disk(&mut self, bytes: u64) {
        let place = self.file("disk");
        fs::create_dir(&place).unwrap();
        self.database_url = format!("sqlite://{}", place.join("certwright.db").display());
        self.set("DATABASE_URL", &self.database_url.clone());
        self.disk = Some(bytes);
    }
}

impl Program {
    /// Has its disk end that many bytes after what is written on it.
    pub async fn leave_on_disk(&self, site: &Installation, room: u64) {
        let seen_by_it = Path::new("/proc").join(self.child.id().to_string()).join("root");
        let seen = seen_by_it.join(site.file("disk").strip_prefix("/").unwrap());
        // What is written meanwhile may be more than that already; then it is not taken.
        until("a disk that is nearly full", async || {
            let disk = rustix::fs::statvfs(&seen).unwrap();
            let written = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
            self.try_resize_disk(site, written + room).status.success()
        })
        .await;
    }

    /// Gives its disk so many bytes.
    pub fn resize_disk(&self, site: &Installation, bytes: u64) {
        let done = self.try_resize_disk(site, bytes);
        assert!(done.status.success(), "{done:?}");
    }

    fn try_resize_disk(&self, site: &Installation, bytes: u64) -> Output {
        let mut command = self.beside(site, "mount");
        command.args(["-o", &format!("remount,size={bytes}")]).arg(site.file("disk"));
        output(&mut command)
    }

    /// A command with the same disks as this program.
    pub(super) fn beside(&self, site: &Installation, command: &str) -> Command {
        if site.disk.is_none() {
            return Command::new(command);
        }
        let mut beside = Command::new("nsenter");
        beside.args(["--user", "--preserve-credentials", "--mount", "--target"]);
        beside.arg(self.child.id().to_string()).arg(command);
        beside
    }
}
