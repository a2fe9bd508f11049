//! What the compiler says about mistakes: it names the types that programs name, and says what to use instead.
//!
//! The words around them depend on the compiler, so only few are expected.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs};

/// Its dependencies are built where those of the tests are, which may be the same.
const TARGET: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/..");

/// Programs that do not compile: their names, and the bodies of `main`.
const PROGRAMS: [(&str, &str); 7] = [
    ("mismatch", "let port: u16 = net::Server::new(config()).unwrap();"),
    ("mismatch_local", "let port: u16 = net::LocalServer::new(config()).unwrap();"),
    ("factory", "let client: u16 = transport::Client::with_factory(ClientConfig::new(), Mine);"),
    (
        "method",
        "iostream::Server::with_factory(config(), || Mine(Rc::default())).on_message(|_, _| ());",
    ),
    ("bound", "net::Server::with_factory(config(), || Mine(Rc::default()));"),
    (
        "endpoint_in_thread",
        "let server = iostream::Server::with_factory(config(), LocalHandlers::new());
        std::thread::spawn(move || server.connections().len());",
    ),
    (
        "context_in_thread",
        "iostream::Server::new(config()).on_open(|context| {
            std::thread::spawn(move || context.send(\"later\"));
        });",
    ),
];

/// The package with the programs.
static PACKAGE: LazyLock<PathBuf> = LazyLock::new(|| {
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiler_errors");
    let programs = package.join("src/bin");
    fs::create_dir_all(&programs).unwrap();
    let anyloop = env!("CARGO_MANIFEST_DIR");
    let manifest = format!(
        "[package]\nname = \"mistakes\"\nedition = \"2021\"\n\
        [dependencies]\nanyloop = {{ path = '{anyloop}' }}\n[workspace]\n"
    );
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    // The same versions of the dependencies, which are there.
    fs::copy(Path::new(anyloop).join("../Cargo.lock"), package.join("Cargo.lock")).unwrap();
    for (name, body) in PROGRAMS {
        let program = format!(
            "#![allow(unused)]
use anyloop::prelude::*;
use anyloop::{{iostream, net, transport}};
use std::rc::Rc;

struct Mine(Rc<()>);

impl Handler for Mine {{}}

fn config() -> ServerConfig {{
    ServerConfig::new(OriginPolicy::Any)
}}

fn main() {{
    {body}
}}
"
        );
        fs::write(programs.join(format!("{name}.rs")), program).unwrap();
    }
    package
});

/// What the compiler says about a program.
fn errors(program: &str) -> String {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--offline", "--color", "never", "--target-dir", TARGET, "--bin", program])
        .current_dir(&*PACKAGE)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains(&format!("could not compile `mistakes` (bin \"{program}\")")),
        "{errors}"
    );
    errors
}

#[track_caller]
fn assert_says(program: &str, expected: &[&str], unexpected: &[&str]) {
    let errors = errors(program);
    for words in expected {
        assert!(errors.contains(words), "no {words:?} in:\n{errors}");
    }
    for words in unexpected {
        assert!(!errors.contains(words), "{words:?} in:\n{errors}");
    }
}

#[test]
fn a_server_is_called_as_the_program_calls_it() {
    assert_says("mismatch", &["found `Server`", "`anyloop::net::Server`"], &["Threads", "Net<"]);
    assert_says("mismatch_local", &["`LocalServer`"], &["Local>", "Net<"]);
}

#[test]
fn a_factory_that_is_none_is_named() {
    assert_says("factory", &["`Mine"], &["Core"]);
}

#[test]
fn a_missing_method_is_missing_in_the_server() {
    assert_says("method", &["`anyloop::iostream::Server<{closure@"], &["Threads", "IoStream"]);
}

#[test]
fn a_handler_that_stays_on_its_thread_does_not_fit() {
    assert_says("bound", &["`Rc<()>`", "net::Server::<F>::with_factory`"], &["Net<", "Threads"]);
}

#[test]
fn an_endpoint_that_stays_on_its_thread_is_named() {
    assert_says(
        "endpoint_in_thread",
        &["`anyloop::iostream::Server<LocalHandlers>`"],
        &["Threads"],
    );
}

#[test]
fn a_context_in_another_thread_leads_to_the_handle() {
    assert_says("context_in_thread", &["UseContextHandleInOtherThreads"], &["dyn anyloop::stream"]);
}
