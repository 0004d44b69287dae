//! Who we are whatever our address (RFC 5626 §4.1): a name for this gateway's account on this machine that outlives
//! restarts, so that the registrar, and we ourselves, know an old binding as ours.

use sha1::{Digest as _, Sha1};

/// The instance id, a UUID of version 5 (RFC 9562 §5.5): the machine's id is the name space, the address of record the
/// name. The machine's id itself, which is nobody's business, cannot be told from it.
pub fn instance_id(machine_id: &str, address_of_record: &str) -> String {
    let machine_id = machine_id.trim();
    let name_space = hexadecimal_bytes(machine_id).unwrap_or_else(|| first_bytes(&[machine_id.as_bytes()]));
    let mut uuid = first_bytes(&[&name_space, address_of_record.as_bytes()]);
    uuid[6] = uuid[6] & 0x0f | 0x50;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let digits = crate::sip::digest::hexadecimal(&uuid);
    let (a, b, c, d, e) = (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
    format!("urn:uuid:{a}-{b}-{c}-{d}-{e}")
}

/// Sixteen bytes written as thirty-two digits, with or without dashes.
fn hexadecimal_bytes(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|character| *character != '-').collect();
    let is_right = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_right.then(|| u128::from_str_radix(&digits, 16).ok()).flatten().map(u128::to_be_bytes)
}

fn first_bytes(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha1::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_9562_comes_out() {
        // Appendix A.4: the name space of DNS and www.example.com.
        let uuid = instance_id("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "www.example.com");
        assert_eq!(uuid, "urn:uuid:2ed6657d-e927-568b-95e1-2665a8aea6a2");
    }

    #[test]
    fn machines_and_accounts_differ_and_any_text_will_do_for_a_machine() {
        let id = instance_id("0123456789abcdef0123456789abcdef\n", "sip:6002@h");
        assert_eq!(id, instance_id("0123456789abcdef0123456789abcdef", "sip:6002@h"));
        assert_ne!(id, instance_id("0123456789abcdef0123456789abcdef", "sip:6003@h"));
        assert_ne!(id, instance_id("my-host", "sip:6002@h"));
        assert_eq!(instance_id("", "").len(), 45);
    }
}
