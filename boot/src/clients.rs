//! The clients' devices, as the toolstack makes them: one task for each directory under `backend/<kind>`.

use core::cell::Cell;

use alloc::{
    collections::BTreeMap,
    format,
    rc::Rc,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use kernel::{
    executor::{self, Task},
    ratelimit::LogLimit,
    sync::{Either, Signal, select},
    virtio_bus::BackEnd,
    xenstore::{self, Error},
};
use protocols::text::decimal;

/// The most devices that are served at a time. xenstored's default quotas for a domain, 1000 nodes and 100 or
/// 128 watches, are enough for these on a few uplinks: a disk takes 22 nodes and a watch, an uplink 16 nodes
/// and a watch. Of disks with an uplink each, 25 fit.
const MAX_DEVICES: usize = 40;

/// How many devices are served, of all kinds.
#[derive(Clone, Default)]
pub struct Census(Rc<Cell<usize>>);

/// One of them, for as long as it is served.
struct Counted(Census);

impl Census {
    fn enter(&self) -> Option<Counted> {
        let count = self.0.get();
        if count == MAX_DEVICES {
            return None;
        }
        self.0.set(count + 1);
        Some(Counted(self.clone()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

/// A device's place: the client's domain id and the device's number.
type Place = (u16, u32);

/// Calls `serve` for every device directory `backend/<kind>/<client>/<device>`, now and as they appear, with
/// its path, client and log, and runs the future that it returns. An error that concerns one directory is
/// logged; it ends only with the connection to xenstore.
pub async fn run<F>(
    kind: &str,
    census: Census,
    mut serve: impl FnMut(String, u16, LogLimit) -> F,
) -> Result<(), Error>
where
    F: Future<Output = ()> + 'static,
{
    let root = format!("backend/{kind}");
    let mut watch = xenstore::watch(&root).await?;
    let mut tasks: BTreeMap<Place, Task<()>> = BTreeMap::new();
    // Of places that are there: a client can end its device and have it served anew, which is no way to new
    // lines in the log.
    let mut logs: Vec<(Place, LogLimit)> = Vec::new();
    let ended = Rc::new(Signal::new());
    loop {
        let changed = match select(watch.next(), ended.wait()).await {
            Either::First(path) => path,
            // A directory that was made anew before its predecessor's task had ended was passed over.
            Either::Second(()) => root.clone(),
        };
        let places = match places(&root, &changed).await {
            Err(error) if error != Error::Broken => {
                log::error!("{changed}: {error}");
                continue;
            }
            places => places?,
        };
        if changed == root {
            logs.retain(|(place, _)| places.contains(place));
        }
        for place in places {
            tasks.retain(|_, task| !task.is_finished());
            let path = format!("{root}/{}/{}", place.0, place.1);
            if tasks.contains_key(&place) {
                continue;
            }
            match xenstore::exists(&format!("{path}/state")).await {
                Ok(true) => {}
                // Without a state, the directory is gone, or is that of a device that was refused.
                Ok(false) => continue,
                Err(Error::Broken) => return Err(Error::Broken),
                Err(error) => {
                    log::error!("{path}: {error}");
                    continue;
                }
            }
            let log = log_of(&mut logs, place, &path);
            let ended = ended.clone();
            let task = match census.enter() {
                Some(counted) => {
                    let served = serve(path, place.0, log);
                    executor::spawn(async move {
                        served.await;
                        drop(counted);
                        ended.set();
                    })
                }
                None => executor::spawn(async move {
                    refuse(&path, place.0, log).await;
                    ended.set();
                }),
            };
            tasks.insert(place, task);
        }
    }
}

/// The log of a place: the one that it had, unless it was gone meanwhile, or very many others were served.
fn log_of(logs: &mut Vec<(Place, LogLimit)>, place: Place, path: &str) -> LogLimit {
    let had = logs.iter().position(|(of, _)| *of == place);
    let (_, log) = had.map_or_else(|| (place, LogLimit::new(path)), |index| logs.remove(index));
    if logs.len() == 2 * MAX_DEVICES {
        logs.remove(0);
    }
    logs.push((place, log.clone()));
    log
}

/// Refuses a device that is one too many.
async fn refuse(path: &str, client: u16, log: LogLimit) {
    let (Ok(back_end) | Err((back_end, _))) = BackEnd::new(path, client, log).await;
    back_end
        .refuse(format_args!("there are {MAX_DEVICES} devices already"))
        .await;
}

/// The devices that a change of this path may concern.
async fn places(root: &str, changed: &str) -> Result<Vec<Place>, Error> {
    let mut parts = changed.strip_prefix(root).unwrap_or("").split('/').skip(1);
    let mut places = Vec::new();
    let clients = match parts.next() {
        Some(client) => vec![client.to_string()],
        None => list(root).await?,
    };
    let device = parts.next();
    for client in clients {
        let Some(domid) = decimal(&client).and_then(|domid| u16::try_from(domid).ok()) else {
            continue;
        };
        let devices = match device {
            Some(device) => vec![device.to_string()],
            None => list(&format!("{root}/{client}")).await?,
        };
        places.extend(
            devices
                .iter()
                .filter_map(|device| Some((domid, decimal(device)?))),
        );
    }
    Ok(places)
}

/// The entries of a directory, which need not be there.
async fn list(path: &str) -> Result<Vec<String>, Error> {
    match xenstore::list(path).await {
        Err(Error::NoEntry) => Ok(Vec::new()),
        result => result,
    }
}
