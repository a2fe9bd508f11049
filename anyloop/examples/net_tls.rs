//! A server that speaks TLS, and reads its certificate again each hour, in case it was renewed.
//!
//! ```text
//! cargo run --features tls --example net_tls -- chat.pem chat.key 127.0.0.1:9443
//! ```

use std::{error::Error, time::Duration};

use anyloop::prelude::*;
use anyloop::{net::Server, tls::ServerTls};

const HOUR: Duration = Duration::from_secs(3600);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(certificate), Some(key)) = (arguments.next(), arguments.next()) else {
        return Err("usage: net_tls CERTIFICATE KEY [ADDRESS]".into());
    };
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9443".to_string());

    let tls = ServerTls::from_pem_files(certificate, key)?;
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    server.on_open(|context| {
        let Some(tls) = context.tls() else { return };
        println!("{} has asked for {:?}", context.remote_endpoint(), tls.server_name());
    });
    server.on_message(|message, context| _ = context.send(message));
    server.on_fail(|_, context| {
        if let Some(error) = context.error() {
            println!("{}: {error}", context.remote_endpoint());
        }
    });

    println!("listening on wss://{}", server.over_tls(&tls).listen(address.as_str())?);
    server.start_accept()?;
    let _reloading = server.event_loop().every(HOUR, move || match tls.reload() {
        Ok(()) => println!("the certificate was read again"),
        Err(error) => println!("the certificate stays as it was: {error}"),
    });
    server.run();
    Ok(())
}
