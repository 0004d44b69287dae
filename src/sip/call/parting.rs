//! What a transfer does to its two calls: the transferor's, which fades, and the one to the target, which we began.

use super::moving::Moving;
use super::refresh::Refresh;
use super::{Call, Exchange, PeerAbilities, State};
use crate::sip::body::session_description;
use crate::sip::dialog::Dialog;
use crate::sip::event::{CallKey, EndReason, Event};
use crate::sip::layer::{Owner, TransactionLayer};
use crate::sip::reliable::{Reliable, Wanted};
use crate::sip::session_timer::{INTERVAL_S, SessionTimer, Terms};
use crate::sip::timer::LIFETIME;
use crate::time::Instant;
use crate::wire::sip::{Method, Response};
use crate::wire::uri::Host;

impl Call {
    /// A call of ours that was answered; `description` is the offer that its INVITE carried.
    pub(crate) fn of_answer(
        key: CallKey,
        dialog: Dialog,
        contact: String,
        sent_by: (Host, u16),
        description: Vec<u8>,
    ) -> Self {
        Self {
            key,
            dialog,
            contact,
            sent_by,
            state: State::Confirmed,
            exchange: Exchange::Settled,
            description,
            reliable: Reliable::new(Wanted::Never),
            open: None,
            peer: PeerAbilities::default(),
            timer: SessionTimer::default(),
            refresh: Refresh::default(),
            moving: Moving::default(),
            is_probed: false,
            refers: 0,
        }
    }

    /// ACK for the 2xx to the INVITE that began it.
    pub(crate) fn acknowledge(&mut self, now: Instant, response: &Response, layer: &mut TransactionLayer) {
        let cseq = response.headers.cseq().map_or(0, |cseq| cseq.number);
        self.send_ack(cseq, layer);
        self.peer.learn(&response.headers);
        self.timer.start(now, Terms::of_response(&response.headers, INTERVAL_S), false);
    }

    /// Our Contact value.
    pub(crate) fn contact(&self) -> &str {
        &self.contact
    }

    /// Our address in a Via.
    pub(crate) fn sent_by(&self) -> (Host, u16) {
        self.sent_by.clone()
    }

    /// Whether it is up and nothing of either side waits.
    pub(crate) fn is_confirmed(&self) -> bool {
        matches!(self.state, State::Confirmed) && self.exchange == Exchange::Settled
    }

    /// One more REFER; how many there were.
    pub(crate) const fn count_refer(&mut self) -> u32 {
        self.refers += 1;
        self.refers
    }

    /// NOTIFY with a fragment of the target's response (RFC 3420).
    pub(crate) fn notify(
        &mut self,
        now: Instant,
        event: &str,
        state: &str,
        fragment: String,
        layer: &mut TransactionLayer,
    ) {
        let request = self
            .dialog
            .request(Method::Notify)
            .with("Contact", &self.contact)
            .with("Event", event)
            .with("Subscription-State", state)
            .with_body("message/sipfrag;version=2.0", fragment);
        layer.request(now, Owner::Unheeded, self.dialog.path(), self.sent_by.clone(), request);
    }

    /// BYE of the transferor before the target has answered; false if the call is in no state for that.
    pub(crate) fn leave_to_transfer(&mut self, layer: &mut TransactionLayer) -> bool {
        let is_up = matches!(self.state, State::Confirmed);
        if is_up {
            self.state = State::Parted;
            layer.out.event(Event::Parted { call: self.key });
        }
        is_up
    }

    /// The target has answered: another call has this one's key.
    pub(crate) fn part(&mut self, now: Instant) {
        self.state = match self.state {
            State::Parted => State::Over,
            _ => State::Transferred { bye_at: now + LIFETIME },
        };
    }

    /// The transfer has failed: a call whose telephone has hung up is over, `why` it did so.
    pub(crate) fn lose_transfer(&mut self, why: EndReason, layer: &mut TransactionLayer) {
        if let State::Parted = self.state {
            self.state = State::Over;
            layer.out.event(Event::Ended { call: self.key, why });
        }
    }

    /// The answer that a 2xx to our re-INVITE brings.
    pub(super) fn take_answer(&self, response: &Response, layer: &mut TransactionLayer) {
        if let Ok(Some(sdp)) = session_description(&response.headers, &response.body) {
            layer.out.event(Event::Answer { call: self.key, sdp });
        }
    }
}
