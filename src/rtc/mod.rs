//! One peer connection: ICE and DTLS, which end in an address and SRTP keys.
