//! What the compiler says about mistakes: it names the types that programs name, or what to use instead.
//!
//! The words around them depend on the compiler, so only few are expected.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs};

/// Where the tests are built. The programs have nearly the same dependencies.
const TARGET: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/..");

/// A package whose programs have mistakes.
static PACKAGE: LazyLock<PathBuf> = LazyLock::new(|| {
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiler_errors");
    fs::create_dir_all(package.join("src/bin")).unwrap();
    let anyloop = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = format!(
        "[package]\nname = \"mistakes\"\nedition = \"2021\"\n\
        [dependencies]\nanyloop.path = '{}'\n[workspace]\n",
        anyloop.display()
    );
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    // The same versions of the dependencies, which are there.
    fs::copy(anyloop.join("../Cargo.lock"), package.join("Cargo.lock")).unwrap();
    package
});

/// What the compiler says about a program, of which `body` is in `main`.
fn errors(name: &str, body: &str) -> String {
    let program = format!(
        "#![allow(unused)]
use anyloop::prelude::*;
use anyloop::{{iostream, net, transport}};
use std::rc::Rc;

/// A handler that must stay on its thread.
#[derive(Default)]
struct Mine(Rc<()>);

impl Handler for Mine {{}}

fn main() {{
    let config = ServerConfig::new(OriginPolicy::Any);
    {body}
}}
"
    );
    fs::write(PACKAGE.join(format!("src/bin/{name}.rs")), program).unwrap();
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--offline", "--color", "never", "--target-dir", TARGET, "--bin", name])
        .current_dir(&*PACKAGE)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&output.stderr);
    assert!(output.contains(&format!("could not compile `mistakes` (bin \"{name}\")")), "{output}");
    // An older compiler may warn of something in the library first.
    let errors = output.find("\nerror").expect("there is one");
    output[errors..].to_string()
}

#[track_caller]
fn assert_says(errors: &str, expected: &[&str], unexpected: &[&str]) {
    for words in expected {
        assert!(errors.contains(words), "no {words:?} in:\n{errors}");
    }
    for words in unexpected {
        assert!(!errors.contains(words), "{words:?} in:\n{errors}");
    }
}

#[test]
fn a_server_has_the_name_that_the_program_uses() {
    let errors = errors("mismatch", "let port: u16 = net::Server::new(config).unwrap();");
    assert_says(&errors, &["found `Server`", "`anyloop::net::Server`"], &["Threads", "Net<"]);
}

#[test]
fn a_server_of_one_thread_has_the_name_that_the_program_uses() {
    let errors = errors("local", "let port: u16 = net::LocalServer::new(config).unwrap();");
    assert_says(&errors, &["found `LocalServer`"], &["Local>", "Net<"]);
}

#[test]
fn a_method_is_missing_in_a_server_with_its_factory() {
    let errors =
        errors("method", "iostream::Server::with_factory(config, Mine::default).listen();");
    assert_says(&errors, &["`anyloop::iostream::Server", "Mine"], &["Threads"]);
}

#[test]
fn what_is_no_factory_is_named() {
    let errors = errors("factory", "transport::Server::with_factory(config, Mine::default());");
    let expected = ["`Mine`", "`HandlerFactory`", "wrap the `Mine` in a closure"];
    assert_says(&errors, &expected, &["Core<"]);
}

#[test]
fn a_handler_that_must_stay_on_its_thread_does_not_fit_a_loop_of_threads() {
    let errors = errors("bound", "net::Server::with_factory(config, Mine::default);");
    let expected =
        ["`Rc<()>`", "`anyloop::net::Server::<F>::with_factory`", "not required by `LocalServer`"];
    assert_says(&errors, &expected, &["Net<"]);
}

#[test]
fn what_is_no_handler_leads_to_the_trait_and_to_closures() {
    let errors = errors("handler", "iostream::Server::with_factory(config, || 42);");
    let expected = [
        "`{integer}` is not a handler of connections",
        "it does not implement `Handler`",
        "all methods have defaults; or set closures: `server.on_message(..)`",
    ];
    assert_says(&errors, &expected, &["Core<"]);
}

#[test]
fn what_is_no_message_leads_to_strings_and_bytes() {
    let errors =
        errors("message", "iostream::Server::new(config).on_open(|context| _ = context.send(42));");
    let expected = [
        "`{integer}` cannot be sent as a message",
        "send a string for a text message, or bytes for a binary one",
    ];
    assert_says(&errors, &expected, &["Seal"]);
}

#[test]
fn what_is_no_address_leads_to_those_that_are() {
    let errors = errors("address", "net::Server::new(config).unwrap().listen(9002);");
    let expected = [
        "`{integer}` is not an address to listen on",
        "a string such as \"127.0.0.1:9002\", a pair of host and port, or a `SocketAddr`",
    ];
    assert_says(&errors, &expected, &["Net<"]);
}

#[test]
fn what_is_no_transport_leads_to_the_methods_that_it_needs() {
    let errors = errors("transport", "let stream: &mut dyn transport::Transport = &mut 42;");
    let expected = [
        "`{integer}` is not a transport",
        "implement `Transport` for it: `write` and `shutdown` are required",
    ];
    assert_says(&errors, &expected, &[]);
}

#[test]
fn a_server_that_must_stay_on_its_thread_is_named() {
    let errors = errors(
        "server_in_thread",
        "let server = iostream::Server::with_factory(config, LocalHandlers::new());
    std::thread::spawn(move || server.connections().len());",
    );
    assert_says(&errors, &["`anyloop::iostream::Server<"], &["Settings"]);
}

#[test]
fn a_context_in_another_thread_leads_to_its_handle() {
    let errors = errors(
        "context_in_thread",
        "iostream::Server::new(config).on_open(|context| {
        std::thread::spawn(move || context.send(\"later\"));
    });",
    );
    assert_says(&errors, &["UseContextHandleInOtherThreads"], &["Seal"]);
}
