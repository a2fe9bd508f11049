//! Addresses of `anyloop serve` that share a port, or that no interface has.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use crate::peer::Peer;
use crate::program::{Ended, Folder, PROGRAM, Running, Server, anyloop};

#[test]
fn ipv6_and_ipv4_can_share_a_port() {
    let Some(port) = free_port() else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    let (v4, v6) = (format!("0.0.0.0:{port}"), format!("[::]:{port}"));
    let (own, all) = (format!("127.0.0.1:{port}"), port.to_string());
    for addresses in [[&v6, &v4], [&v4, &v6], [&v6, &own], [&own, &v6], [&all, &v4], [&v4, &all]] {
        let mut command = anyloop(["serve", "--listen", addresses[0], "--listen", addresses[1]]);
        let server = Server::listening(&mut command, 2);
        Peer::client((Ipv4Addr::LOCALHOST, port).into(), "/").close(1000);
        Peer::client((Ipv6Addr::LOCALHOST, port).into(), "/").close(1000);
        assert_eq!(server.stop().code(), Some(0), "{addresses:?}");
    }
}

#[test]
fn an_unavailable_address_of_a_name_is_skipped() {
    // As in some containers: /etc/hosts has ::1 for localhost, but no interface has that address.
    let script = "\
        echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6 &&
        printf '::1 localhost\\n127.0.0.1 localhost\\n' > \"$1\" &&
        mount --bind \"$1\" /etc/hosts || exit 77
        \"$0\" serve --listen localhost:9002 & serve=$!
        until \"$0\" connect --wait 0 ws://127.0.0.1:9002/ </dev/null 2>/dev/null; do
            kill -0 $serve || exit 1
        done
        kill $serve; wait $serve";
    let folder = Folder::new("hosts");
    let hosts = folder.join("hosts");
    let Some(ended) = in_namespace(script, hosts.to_str().expect("the path is UTF-8")) else {
        return;
    };
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.lines(), ["listening on ws://127.0.0.1:9002"]);
    let said = "anyloop: localhost:9002: not listening on [::1]:9002: ";
    assert!(ended.stderr.starts_with(said), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);

    // If no address of the name is available, the server fails.
    let script = "exec \"$0\" serve --listen 192.0.2.1:9002";
    let Some(ended) = in_namespace(script, "") else { return };
    ended.expect(1, "cannot listen on 192.0.2.1:9002: ");
}

#[test]
fn a_zone_is_an_interface_name_or_index() {
    let script = "\
        ip address add fe80::1/64 dev lo nodad || exit 77
        \"$0\" serve --listen '[fe80::1%lo]:9002' --listen '[fe80::1%1]:9003' >\"$1\" & serve=$!
        until [ \"$(wc -l <\"$1\")\" = 2 ]; do kill -0 $serve || exit 1; done
        cat \"$1\"; kill $serve; wait $serve";
    let folder = Folder::new("zones");
    let said = folder.join("said");
    let Some(ended) = in_namespace(script, said.to_str().expect("the path is UTF-8")) else {
        return;
    };
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let expected = ["listening on ws://[fe80::1%1]:9002", "listening on ws://[fe80::1%1]:9003"];
    assert_eq!(ended.lines(), expected, "{}", ended.stderr);

    let command = &mut anyloop(["serve", "--listen", "[fe80::1%nosuchzone]:9002"]);
    let ended = Running::start(command).end();
    ended.expect(1, "cannot look up fe80::1%nosuchzone:9002: ");
}

/// Runs a shell script in its own network namespace, with `anyloop` as `$0`. Returns `None` if the system does not
/// permit that.
fn in_namespace(script: &str, argument: &str) -> Option<Ended> {
    let script = format!("ip link set lo up || exit 77\n{script}");
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["sh", "-c", &script, PROGRAM, argument]).stdin(Stdio::null());
    let permitted = Command::new("unshare")
        .args(["--map-root-user", "--net", "--mount", "--pid", "--fork", "true"])
        .stderr(Stdio::null())
        .status();
    if !permitted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this system does not permit a network namespace (unshare)");
        return None;
    }
    let ended = Running::start(&mut command).end();
    if ended.code() == Some(77) {
        eprintln!("skipped: the network cannot be configured: {}", ended.stderr);
        return None;
    }
    Some(ended)
}

/// A port that is free for IPv4 and IPv6. `None` if the machine has no IPv6.
fn free_port() -> Option<u16> {
    (0..100).find_map(|_| {
        let v6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).ok()?;
        let port = v6.local_addr().ok()?.port();
        drop(v6);
        let both = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let free = both.iter().all(|ip| TcpListener::bind(SocketAddr::new(*ip, port)).is_ok());
        free.then_some(port)
    })
}
