//! The networks people have, in virtual time: what becomes of a call there.

mod call;
mod galene;
mod gateway;
mod loss;
mod nat;
mod network;
mod turn_server;
mod ways;

#[test]
fn thin() {
    println!("{}", ways::table());
}
