//! A telephone that sends nothing is asked whether it is there, and its caller leaves the room only if it is not.

use super::{seconds, world_with_calls};
use crate::gateway::Input;
use crate::gateway::desk::LegOwner;
use crate::media::control::NetEvent;
use crate::sip::event::CallKey;

#[test]
fn a_silent_telephone_that_answers_stays_and_one_that_does_not_is_gone() {
    let mut world = world_with_calls(&["ada"]);
    let owner = LegOwner::Telephone(CallKey(1));
    let mut open = world.gateway.sockets().open.clone().into_iter();
    let leg = open.find(|leg| world.gateway.desk.leg_owner(*leg).as_ref() == Some(&owner)).unwrap();
    for is_there in [true, false] {
        world.gateway.handle_input(world.now, Input::Net(NetEvent::Silent { leg }));
        world.run(seconds(0));
        let question = world.sip.last().unwrap().clone();
        assert!(question.starts_with("OPTIONS sip:ada@"), "{question}");
        if is_there {
            world.answer(&question, 200, "");
        }
        world.run(seconds(33));
        assert_eq!(world.sip.iter().any(|text| text.starts_with("BYE")), !is_there);
    }
    assert!(world.gateway.sockets().open.is_empty());
    assert_eq!(world.mix.last().unwrap(), "CloseRoom");
}
