//! The configuration of a provider: clients stand behind NATs, so that answers go to where requests came from, Contacts bear
//! the addresses that were seen (`alias`), and media may be relayed.

use std::net::SocketAddr;
use std::path::Path;

use super::{OF_REGISTRARS, PASSWORD, REGISTRAR, USER, head};

/// `relay` is where rtpengine takes orders.
pub(super) fn config(address: SocketAddr, modules: &Path, relay: Option<SocketAddr>) -> String {
    let mut loaded = [&OF_REGISTRARS[..], &["nathelper"]].concat();
    let mut relay_lines = String::new();
    // An empty statement.
    let mut relayed = ";";
    if let Some(relay) = relay {
        loaded.push("rtpengine");
        relay_lines = format!("modparam(\"rtpengine\", \"rtpengine_sock\", \"udp:{relay}\")\n");
        // A client's NAT may give it another port in mid call.
        relayed = "rtpengine_manage(\"replace-origin replace-session-connection media-handover\");";
    }
    format!(
        r#"{head}{relay_lines}{REGISTRAR}modparam("nathelper|registrar", "received_avp", "$avp(received)")

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    force_rport();
    if (is_method("REGISTER")) {{
        if ($tU!="{USER}" || !pv_www_authenticate("$td", "{PASSWORD}", "0")) {{ www_challenge("$td", "1"); exit; }}
        fix_nated_register();
        if (!save("location")) {{ exit; }}
        if (registered("location", "$tu")) {{ xlog("L_ALERT", "lab: bound $tU $ct from $si:$sp\n"); }}
        else {{ xlog("L_ALERT", "lab: unbound $tU\n"); }}
        exit;
    }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
    set_contact_alias();
    if (has_totag()) {{
        if (!loose_route()) {{
            if (is_method("ACK") && t_check_trans()) {{ t_relay(); exit; }}
            if (!is_method("ACK")) {{ sl_send_reply("481", "No Such Dialog"); }}
            exit;
        }}
        handle_ruri_alias();
    }} else {{
        if (is_method("INVITE")) {{ record_route(); }}
        if (!lookup("location")) {{ sl_send_reply("404", "Nobody Registered"); exit; }}
    }}
    if (is_method("INVITE|ACK|BYE|UPDATE")) {{ {relayed} }}
    t_on_reply("SEEN");
    if (!t_relay()) {{ sl_reply_error(); }}
}}

onreply_route[SEEN] {{
    set_contact_alias();
    if (has_body("application/sdp")) {{ {relayed} }}
}}
"#,
        head = head(address, modules, &loaded)
    )
}
