//! The networks people have, in virtual time: what becomes of a call there.

mod call;
mod galene;
mod gateway;
mod loss;
mod nat;
mod network;
mod registrar;
mod telephone;
mod turn_server;
mod ways;
mod weather;

#[test]
fn thin() {
    let t = std::time::Instant::now();
    println!("{}", registrar::table());
    println!("{}", ways::table());
    println!("{}", weather::table(weather::seeds()));
    eprintln!("{:?}", t.elapsed());
}
