//! Commands of the control queue ("Control Virtqueue").

use alloc::vec::Vec;

use super::state::{Shared, State, Tables};
use super::{Mac, Port, features};

/// VIRTIO_NET_OK.
pub(super) const OK: u8 = 0;
/// VIRTIO_NET_ERR.
pub(super) const ERR: u8 = 1;

/// The most bytes of a command. A table of some thousand addresses fits; no other is longer than ten bytes.
pub(super) const MAX_COMMAND: usize = 16 << 10;
/// The most addresses of a table that are looked at; of longer ones, everything is wanted.
const MAX_TABLE: usize = 64;

// Classes.
const RX: u8 = 0;
const MAC: u8 = 1;
const VLAN: u8 = 2;
const ANNOUNCE: u8 = 3;
const MQ: u8 = 4;
const GUEST_OFFLOADS: u8 = 5;

// Commands of RX.
const PROMISC: u8 = 0;
const ALLMULTI: u8 = 1;
const ALLUNI: u8 = 2;
const NOMULTI: u8 = 3;
const NOUNI: u8 = 4;
const NOBCAST: u8 = 5;
// Commands of MAC.
const TABLE_SET: u8 = 0;
const ADDR_SET: u8 = 1;
// Commands of VLAN.
const ADD: u8 = 0;
const DEL: u8 = 1;
// Of the others.
const ANNOUNCE_ACK: u8 = 0;
const VQ_PAIRS_SET: u8 = 0;
const GUEST_OFFLOADS_SET: u8 = 0;

/// A command was not obeyed: it is unknown, malformed, not negotiated, or asks for what may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Obeys a command, as long as it is one of `features`: all of it, or nothing.
pub(super) fn obey<P: Port>(shared: &Shared, port: &P, features: u64, command: &[u8]) -> Result<(), Refused> {
    let [class, command, data @ ..] = command else {
        return Err(Refused);
    };
    let state = &mut *shared.0.borrow_mut();
    require(features, feature(*class, *command)?)?;
    match (*class, *command) {
        (RX, command) => receive_mode(state, command, data)?,
        (MAC, TABLE_SET) => {
            let (unicast, rest) = table(data)?;
            let (multicast, rest) = table(rest)?;
            if !rest.is_empty() {
                return Err(Refused);
            }
            state.wanted.tables = Some(Tables { unicast, multicast });
        }
        (MAC, ADDR_SET) => set_mac(state, data)?,
        (VLAN, command) => {
            let vlan = usize::from(u16::from_le_bytes(fixed(data)?));
            let word = state
                .wanted
                .vlans
                .as_mut()
                .and_then(|vlans| vlans.get_mut(vlan / 64));
            let word = word.ok_or(Refused)?;
            let bit = 1 << (vlan % 64);
            *word = if command == ADD { *word | bit } else { *word & !bit };
        }
        (ANNOUNCE, _) => {
            state.announce = false;
            return Ok(());
        }
        (MQ, _) => {
            let pairs = u16::from_le_bytes(fixed(data)?);
            if pairs == 0 || pairs > state.max_pairs {
                return Err(Refused);
            }
            state.pairs = pairs;
            port.set_queues(pairs);
            return Ok(());
        }
        _ => {
            let offloads = u64::from_le_bytes(fixed(data)?);
            require(features & features::GUEST_OFFLOADS, offloads)?;
            state.offloads = offloads;
            return Ok(());
        }
    }
    port.set_filter(state.filter());
    Ok(())
}

/// The feature that a command belongs to.
fn feature(class: u8, command: u8) -> Result<u64, Refused> {
    match (class, command) {
        (RX, PROMISC | ALLMULTI) => Ok(features::CTRL_RX),
        (RX, ALLUNI | NOMULTI | NOUNI | NOBCAST) => Ok(features::CTRL_RX_EXTRA),
        (MAC, TABLE_SET) => Ok(features::CTRL_RX),
        (MAC, ADDR_SET) => Ok(features::CTRL_MAC_ADDR),
        (VLAN, ADD | DEL) => Ok(features::CTRL_VLAN),
        (ANNOUNCE, ANNOUNCE_ACK) => Ok(features::GUEST_ANNOUNCE),
        (MQ, VQ_PAIRS_SET) => Ok(features::MQ),
        (GUEST_OFFLOADS, GUEST_OFFLOADS_SET) => Ok(features::CTRL_GUEST_OFFLOADS),
        _ => Err(Refused),
    }
}

fn require(features: u64, wanted: u64) -> Result<(), Refused> {
    if wanted & !features == 0 {
        Ok(())
    } else {
        Err(Refused)
    }
}

fn fixed<const N: usize>(data: &[u8]) -> Result<[u8; N], Refused> {
    data.try_into().map_err(|_| Refused)
}

fn receive_mode(state: &mut State, command: u8, data: &[u8]) -> Result<(), Refused> {
    let on = match data {
        [0] => false,
        [1] => true,
        _ => return Err(Refused),
    };
    let wanted = &mut state.wanted;
    match command {
        PROMISC => wanted.promiscuous = on,
        ALLMULTI => wanted.all_multicast = Some(on),
        ALLUNI => wanted.all_unicast = on,
        NOMULTI => wanted.no_multicast = on,
        NOUNI => wanted.no_unicast = on,
        _ => wanted.no_broadcast = on,
    }
    Ok(())
}

fn set_mac(state: &mut State, data: &[u8]) -> Result<(), Refused> {
    let mac: Mac = fixed(data)?;
    let group = mac[0] & 1 != 0;
    if group || mac == [0; 6] || state.mac_fixed && mac != state.mac {
        return Err(Refused);
    }
    state.mac = mac;
    Ok(())
}

/// struct virtio_net_ctrl_mac: a sorted table, if it is not too long, and what follows it.
fn table(data: &[u8]) -> Result<(Option<Vec<Mac>>, &[u8]), Refused> {
    let (entries, rest) = data.split_first_chunk().ok_or(Refused)?;
    let entries = usize::try_from(u32::from_le_bytes(*entries)).map_err(|_| Refused)?;
    let bytes = entries.checked_mul(size_of::<Mac>()).ok_or(Refused)?;
    let (macs, rest) = rest.split_at_checked(bytes).ok_or(Refused)?;
    if entries > MAX_TABLE {
        return Ok((None, rest));
    }
    let macs = macs.chunks_exact(size_of::<Mac>());
    let mut table: Vec<Mac> = Vec::with_capacity(entries);
    // So few are sorted with less code, and about as fast, one by one.
    for mac in macs.filter_map(|mac| mac.try_into().ok()) {
        if let Err(place) = table.binary_search(&mac) {
            table.insert(place, mac);
        }
    }
    Ok((Some(table), rest))
}
