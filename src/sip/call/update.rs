//! UPDATE (RFC 3311), and the offer in a PRACK: changes of the session that need no ACK.

use super::{Call, Exchange, State};
use crate::sip::body::session_description;
use crate::sip::event::{Event, Path};
use crate::sip::layer::TransactionLayer;
use crate::sip::reply::Refusal;
use crate::sip::session_timer::Terms;
use crate::sip::transaction::ServerKey;
use crate::time::Instant;
use crate::wire::sip::{Method, Request, Response};

/// An UPDATE or PRACK whose offer the gateway has not judged yet. It does so within the turn, so that this needs no
/// transaction of its own.
#[derive(Debug)]
pub(super) struct OpenRequest {
    pub(super) key: ServerKey,
    pub(super) request: Request,
    /// The way that it came.
    pub(super) path: Path,
}

impl Call {
    /// UPDATE (RFC 3311 §5.2).
    ///
    /// # Errors
    /// The refusal to be sent.
    pub(crate) fn handle_update(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: Request,
        path: Path,
        layer: &mut TransactionLayer,
    ) -> Result<(), Refusal> {
        match &self.open {
            // The same once more: its answer comes.
            Some(open) if open.key == key => return Ok(()),
            Some(_) => return Err(Refusal::try_again("The previous UPDATE is not answered yet", &mut layer.random)),
            None => {}
        }
        if let State::Parted | State::Transferred { .. } | State::Ending { .. } | State::Over = self.state {
            return Err(Refusal::new(481));
        }
        let offer = session_description(&request.headers, &request.body)?;
        let terms = Terms::of_request(&request.headers)?;
        if let Some(offer) = offer {
            match self.exchange {
                Exchange::Ours => return Err(Refusal::new(491)),
                Exchange::Theirs => {
                    return Err(Refusal::try_again("The previous offer is not answered yet", &mut layer.random));
                }
                Exchange::Settled => {}
            }
            self.open(OpenRequest { key, request, path }, offer, layer);
            return Ok(());
        }
        let response = self.updated(now, &request, path, terms, layer);
        layer.respond(now, path, key, None, response);
        Ok(())
    }

    /// Gives the offer of a request to the gateway.
    pub(super) fn open(&mut self, open: OpenRequest, offer: Vec<u8>, layer: &mut TransactionLayer) {
        self.open = Some(open);
        self.exchange = Exchange::Theirs;
        layer.out.event(Event::Offer { call: self.key, sdp: Some(offer) });
    }

    /// 200 with our answer.
    pub(super) fn answer_open(&mut self, now: Instant, open: OpenRequest, sdp: Vec<u8>, layer: &mut TransactionLayer) {
        self.exchange = Exchange::Settled;
        self.description.clone_from(&sdp);
        let OpenRequest { key, request, path } = open;
        let response = match (&request.method, Terms::of_request(&request.headers)) {
            (Method::Update, Ok(terms)) => self.updated(now, &request, path, terms, layer),
            _ => Response::to_request(&request, 200, ""),
        };
        layer.respond(now, path, key, None, response.with_body("application/sdp", sdp));
        self.proceed(now, layer);
    }

    /// The gateway refuses the offer; all stays as it was.
    pub(super) fn refuse_open(
        &mut self,
        now: Instant,
        open: OpenRequest,
        refusal: &Refusal,
        layer: &mut TransactionLayer,
    ) {
        self.exchange = Exchange::Settled;
        let response = refusal.to_response(&open.request, self.dialog.local_tag());
        layer.respond(now, open.path, open.key, None, response);
        self.proceed(now, layer);
    }

    /// 200 to an UPDATE: the target is refreshed, and the session too, which begins with the 200 to the INVITE.
    fn updated(
        &mut self,
        now: Instant,
        request: &Request,
        path: Path,
        terms: Terms,
        layer: &mut TransactionLayer,
    ) -> Response {
        self.peer.learn(&request.headers);
        self.dialog.refresh_target(request, path, &mut layer.out);
        let mut response = self.success(request);
        if !matches!(self.state, State::Early(_)) {
            terms.grant(&mut response);
            self.timer.start(now, terms, true);
        }
        response
    }
}
