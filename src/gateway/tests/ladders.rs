//! The ladder of a call: both of its sides in one list.

use super::world_with_calls;

#[test]
fn a_call_is_told_from_the_invite_to_the_bye_with_galenes_side_beside_it() {
    let mut world = world_with_calls(&["ada", "ben"]);
    world.kick(1);
    let ladders = world.gateway.ladders();
    assert_eq!(ladders.len(), 2);
    let mut rest = ladders[0].as_str();
    for word in [
        "call 1 (ada",
        "──▶ INVITE (1)",
        "◀── 100 Trying",
        "◀── 180 Ringing",
        "──▶ join",
        "◀── joined club as 'ada'",
        "──▶ offer",
        "◀── answer",
        "◀── connected",
        "◀── 200 OK (1 INVITE), UDP",
        "──▶ ACK (1)",
        "◀── kicked: out",
        "◀── BYE (1)",
    ] {
        let (_, after) = rest.split_once(word).unwrap_or_else(|| panic!("no {word} where it belongs:\n{}", ladders[0]));
        rest = after;
    }
    assert!(ladders[0].contains("PCMU") && !ladders[1].contains("kicked"), "{}", ladders[1]);
}
