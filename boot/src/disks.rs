//! Serving a disk: from the nodes that the toolstack writes for a client to a virtio-blk device on an uplink.

use alloc::{
    format,
    rc::Rc,
    string::{String, ToString},
};
use core::cell::RefCell;

use boot::{
    claims::{Claim, Claims},
    config::Config,
    statistics::{Statistics, Subject},
};
use devices::{
    blk::{Block, Counters, ID_SIZE, Options},
    disk::Disk,
};
use kernel::{blkfront::Uplink, ratelimit::LogLimit, virtio_bus::BackEnd};
use protocols::text::printable;

use crate::uplinks::Uplinks;

/// What serving disks needs.
#[derive(Clone)]
pub struct Disks {
    /// The driver domain's configuration.
    pub config: Rc<Config>,
    /// Its uplinks.
    pub uplinks: Uplinks,
    /// Who uses them.
    pub claims: Claims,
    /// What they do is counted here.
    pub statistics: Statistics,
}

/// What a client gets.
struct Grant {
    uplink: Uplink,
    options: Options,
    /// Held until the disk's last connection has ended.
    _claim: Claim,
}

impl Disks {
    /// Serves the disk that `path` (`backend/virtio_disk/<client>/<device>`) describes, until the toolstack
    /// removes it.
    pub async fn serve(self, path: &str, client: u16, log: LogLimit) {
        let back_end = match BackEnd::new(path, client, log.clone()).await {
            Ok(back_end) => back_end,
            Err((back_end, reason)) => return back_end.refuse(reason).await,
        };
        let grant = match self.admit(&back_end).await {
            Ok(grant) => grant,
            Err(reason) => return back_end.refuse(reason).await,
        };
        let access = if grant.options.read_only {
            "reading"
        } else {
            "writing"
        };
        log.info(format_args!("{} for {access}", grant.uplink.name()));
        let counters = Rc::new(RefCell::default());
        let counted: Rc<RefCell<Counters>> = counters.clone();
        let device = path.rsplit('/').next().unwrap_or_default();
        let _counted = self.statistics.register(
            Subject::new("disk", &[("client", &client.to_string()), ("device", device)]),
            move |tell| counted.borrow().each(tell),
        );
        back_end
            .serve(async move || {
                let Grant { uplink, options, .. } = &grant;
                Ok(Block::with_counters(uplink.clone(), *options, counters.clone()))
            })
            .await;
        log.info(format_args!("ended"));
    }

    /// Decides whether and how the client gets its target.
    async fn admit(&self, back_end: &BackEnd) -> Result<Grant, String> {
        let target = back_end.read("params").await?;
        let disk = self.config.disk(&target).ok_or_else(|| {
            format!(
                "params={}: expected the name of a disk, up to 32 letters, digits, '-' and '_'",
                printable(&target)
            )
        })?;
        let writes = match back_end.read("mode").await?.as_str() {
            "w" => true,
            "r" => false,
            other => return Err(format!("mode={}: expected w or r", printable(other))),
        };
        let discard = match back_end.read_optional("discard-enable").await?.as_deref() {
            None | Some("1") => true,
            Some("0") => false,
            Some(other) => return Err(format!("discard-enable={}: expected 0 or 1", printable(other))),
        };
        let uplink = self.uplinks.find(&disk.vdev).await.ok_or_else(|| {
            format!(
                "params={target}: expected the name of an uplink, and {} is none or not connected",
                disk.vdev
            )
        })?;
        let read_only = !writes || disk.read_only || uplink.geometry().read_only;
        let claim = self
            .claims
            .claim(&disk.vdev, !read_only, disk.shared)
            .map_err(|in_use| format!("params={target}: {} is {in_use}", disk.vdev))?;
        let options = Options {
            queues: disk.queues,
            read_only,
            discard,
            id: id(&disk.vdev),
        };
        Ok(Grant {
            uplink,
            options,
            _claim: claim,
        })
    }
}

/// What GET_ID answers: the uplink's name.
fn id(name: &str) -> [u8; ID_SIZE] {
    let mut id = [0; ID_SIZE];
    let len = name.len().min(ID_SIZE);
    id[..len].copy_from_slice(&name.as_bytes()[..len]);
    id
}
