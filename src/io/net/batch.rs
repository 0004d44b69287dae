//! Datagrams of some sockets, all that wait in each by one system call: recvmmsg(2).
//!
//! Owns: the buffers, and what the kernel says of a datagram: sender, local address, arrival stamp. Does not own: sockets.
//!
//! One call a socket finds out too that nothing more is there, for which `recvmsg` or a look into an epoll set would need
//! another. Several sockets are read before the first of their datagrams is looked at, so that the kernel's code and ours do
//! not drive each other out of the processor's cache with every packet.

use std::mem::{offset_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::libc;
use nix::time::{ClockId, clock_gettime};

use crate::io::clock::Clock;
use crate::time::Instant;

/// Datagrams taken by one call: a tick brings one or two; what is left is taken by the next call.
pub(super) const CALL_DATAGRAMS: usize = 4;

/// Datagrams of a batch: a tick of most rooms.
const BATCH_DATAGRAMS: usize = 64;

/// Larger than any datagram that is taken.
pub(super) const BUFFER_BYTES: usize = 2048;

/// Room for the stamp and the local address of either family, with their headers.
const CONTROL_BYTES: usize = 128;

/// A stamp older than this is not a queued packet but a wall clock that was set meanwhile.
const MAX_STAMP_AGE: Duration = Duration::from_secs(1);

/// A datagram whose bytes are beside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    /// The address it was sent to, as far as the kernel told.
    pub(super) local: SocketAddr,
    pub(super) arrival: Instant,
}

/// The present by both clocks, since stamps are wall-clock time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present {
    now: Instant,
    wall: Duration,
}

impl Present {
    /// Asks both.
    pub(super) fn of(clock: &Clock) -> Self {
        let wall = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
        Self { now: clock.now(), wall }
    }

    /// When a packet with this stamp came: now, if that is in the future or long past.
    fn arrival(self, stamp: Duration) -> Instant {
        match self.wall.checked_sub(stamp) {
            Some(age) if age <= MAX_STAMP_AGE => self.now - age,
            Some(_) | None => self.now,
        }
    }
}

/// Aligned as the kernel's headers in it need.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Room for one datagram and what is told of it. The parts that are used most are beside each other, and the size is no power of
/// two, lest all slots compete for the same lines of the cache.
#[derive(Clone, Copy)]
#[repr(C)]
struct Slot {
    /// Whose socket it came from.
    owner: usize,
    bytes: usize,
    control_bytes: usize,
    address: libc::sockaddr_storage,
    control: Control,
    buffer: [u8; BUFFER_BYTES],
}

/// Datagrams until they are handled.
pub(super) struct Batch {
    slots: Box<[Slot; BATCH_DATAGRAMS]>,
    used: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        // SAFETY: an address of all zeros is one of an unspecified family.
        let address = unsafe { zeroed() };
        let (control, buffer) = (Control([0; CONTROL_BYTES]), [0; BUFFER_BYTES]);
        let slot = Slot { owner: 0, bytes: 0, control_bytes: 0, address, control, buffer };
        Self { slots: Box::new([slot; BATCH_DATAGRAMS]), used: 0 }
    }

    /// Forgets all datagrams.
    pub(super) const fn clear(&mut self) {
        self.used = 0;
    }

    /// There may be no room for all that one call can bring.
    pub(super) const fn is_full(&self) -> bool {
        self.used + CALL_DATAGRAMS > BATCH_DATAGRAMS
    }

    /// How many datagrams there are.
    pub(super) const fn len(&self) -> usize {
        self.used
    }

    /// Takes what waits, at most [`CALL_DATAGRAMS`], behind what is there; returns how many. 0 is nothing, or only the error of
    /// a former send, which is dropped.
    pub(super) fn receive(&mut self, owner: usize, socket: BorrowedFd<'_>) -> usize {
        // SAFETY: both are plain structures of integers and pointers, for which all zeros is a value.
        let (mut parts, mut messages) =
            unsafe { (zeroed::<[libc::iovec; CALL_DATAGRAMS]>(), zeroed::<[libc::mmsghdr; CALL_DATAGRAMS]>()) };
        let free = &mut self.slots[self.used..];
        let room = free.len().min(CALL_DATAGRAMS);
        for ((slot, part), message) in free.iter_mut().zip(&mut parts).zip(&mut messages) {
            part.iov_base = slot.buffer.as_mut_ptr().cast();
            part.iov_len = BUFFER_BYTES;
            let header = &mut message.msg_hdr;
            header.msg_name = (&raw mut slot.address).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            header.msg_control = slot.control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        // SAFETY: every pointer of the first `room` messages is to a live buffer of the length beside it; no time-out.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                room as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).unwrap_or(0);
        for (slot, message) in free.iter_mut().zip(&messages[..received]) {
            // The kernel never says more than it was given; what was cut is dropped by its parser.
            slot.bytes = (message.msg_len as usize).min(BUFFER_BYTES);
            slot.control_bytes = message.msg_hdr.msg_controllen.min(CONTROL_BYTES);
            slot.owner = owner;
        }
        self.used += received;
        received
    }

    /// Whose socket a datagram came from.
    pub(super) fn owner(&self, index: usize) -> usize {
        self.slots[index].owner
    }

    /// A datagram of a socket bound to `bound`. `None` if the kernel names no sender.
    pub(super) fn datagram(
        &mut self,
        index: usize,
        present: Present,
        bound: SocketAddr,
    ) -> Option<(Datagram, &mut [u8])> {
        let slot = &mut self.slots[index];
        let from = unmapped(&slot.address)?;
        let mut datagram = Datagram { from, local: bound, arrival: present.now };
        read_control(&slot.control.0[..slot.control_bytes], present, &mut datagram);
        Some((datagram, &mut slot.buffer[..slot.bytes]))
    }
}

/// Walks the control messages: each is its length, level and type, then the data, and begins at a multiple of a word.
fn read_control(mut control: &[u8], present: Present, datagram: &mut Datagram) {
    const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
    while let Some(header) = read::<libc::cmsghdr>(control) {
        let len = header.cmsg_len;
        let Some(data) = control.get(HEADER_BYTES..len) else { return };
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                if let Some(stamp) = read::<libc::timespec>(data) {
                    let seconds = u64::try_from(stamp.tv_sec).unwrap_or(0);
                    let ns = u32::try_from(stamp.tv_nsec).unwrap_or(0);
                    datagram.arrival = present.arrival(Duration::new(seconds, ns));
                }
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                if let Some(address) =
                    read::<[u8; 4]>(data.get(offset_of!(libc::in_pktinfo, ipi_addr)..).unwrap_or(&[]))
                {
                    datagram.local.set_ip(IpAddr::V4(Ipv4Addr::from(address)));
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(address) = read::<[u8; 16]>(data) {
                    datagram.local.set_ip(Ipv6Addr::from(address).to_canonical());
                }
            }
            _ => {}
        }
        control = control.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or(&[]);
    }
}

/// A plain structure of the kernel's at the start of `bytes`.
fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    // SAFETY: there are as many bytes as are read, and any bytes are a value of a plain type.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// Types of integers alone.
trait Plain: Copy {}
impl Plain for libc::cmsghdr {}
impl Plain for libc::timespec {}
impl Plain for libc::sockaddr_in {}
impl Plain for libc::sockaddr_in6 {}
impl<const N: usize> Plain for [u8; N] {}

fn unmapped(address: &libc::sockaddr_storage) -> Option<SocketAddr> {
    // SAFETY: it is as long as its type says, and all of it was written at construction at the latest.
    let bytes =
        unsafe { std::slice::from_raw_parts((&raw const *address).cast::<u8>(), size_of::<libc::sockaddr_storage>()) };
    match i32::from(address.ss_family) {
        libc::AF_INET => {
            let v4 = read::<libc::sockaddr_in>(bytes)?;
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            let v6 = read::<libc::sockaddr_in6>(bytes)?;
            let (ip, port) = (Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port));
            // The scope stays with link-local addresses, which cannot be answered without it.
            Some(match ip.to_ipv4_mapped() {
                Some(v4) => SocketAddr::from((v4, port)),
                None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id)),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::net::socket::Socket;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair(bind: &str) -> Option<(Socket, UdpSocket, u16)> {
        let udp = UdpSocket::bind(bind).ok()?;
        let port = udp.local_addr().unwrap().port();
        Some((Socket::new(udp).unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap(), port))
    }

    #[test]
    fn all_that_waits_comes_at_once_in_order_with_its_sender_and_the_address_it_was_sent_to() {
        for bind in ["0.0.0.0:0", "[::]:0"] {
            let Some((socket, far, port)) = pair(bind) else { continue };
            for text in ["one", "two", "three", "four", "five"] {
                far.send_to(text.as_bytes(), ("127.0.0.1", port)).unwrap();
            }
            let (clock, mut batch, mut heard) = (Clock::start(), Batch::new(), Vec::new());
            assert_eq!([4, 1, 0].map(|_| batch.receive(7, socket.as_fd())), [4, 1, 0], "{bind}");
            for index in 0..batch.len() {
                let (datagram, bytes) = batch.datagram(index, Present::of(&clock), socket.bound()).unwrap();
                assert_eq!(datagram.from, far.local_addr().unwrap());
                assert_eq!(datagram.local, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
                heard.push(String::from_utf8(bytes.to_vec()).unwrap());
                assert_eq!(batch.owner(index), 7);
            }
            assert_eq!(heard, ["one", "two", "three", "four", "five"]);
        }
    }

    #[test]
    fn a_full_batch_takes_no_more_until_it_is_cleared() {
        let Some((socket, far, port)) = pair("0.0.0.0:0") else { return };
        for _ in 0..BATCH_DATAGRAMS + 2 {
            far.send_to(b"x", ("127.0.0.1", port)).unwrap();
        }
        let mut batch = Batch::new();
        while !batch.is_full() {
            assert_eq!(batch.receive(0, socket.as_fd()), CALL_DATAGRAMS);
        }
        assert_eq!((batch.len(), batch.receive(0, socket.as_fd())), (BATCH_DATAGRAMS, 0));
        batch.clear();
        assert_eq!(batch.receive(0, socket.as_fd()), 2);
    }

    #[test]
    fn a_packet_is_as_old_as_its_stamp_says_unless_that_is_absurd() {
        let present = Present { now: Instant::from_us(5_000_000), wall: Duration::from_secs(100) };
        let arrival = |us: i64| present.arrival(Duration::from_micros((100_000_000 - us).cast_unsigned())).as_us();
        assert_eq!([arrival(15_000), arrival(-3), arrival(30_000_000)], [4_985_000, 5_000_000, 5_000_000]);
    }

    #[test]
    fn control_messages_that_are_cut_short_are_left_alone() {
        let present = Present { now: Instant::from_us(7), wall: Duration::ZERO };
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9));
        let mut bytes = [0; 48];
        bytes[..size_of::<usize>()].copy_from_slice(&40_usize.to_ne_bytes());
        for end in 0..bytes.len() {
            let mut datagram = Datagram { from: any, local: any, arrival: present.now };
            read_control(&bytes[..end], present, &mut datagram);
            assert_eq!((datagram.local, datagram.arrival), (any, present.now));
        }
    }
}
