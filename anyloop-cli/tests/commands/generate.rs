//! The help, completions as each shell loads them, and manual pages.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program::{Folder, Running, anyloop, output};

/// Writes the completions for a shell to a file.
fn write_completions(shell: &str, to: &Path) {
    let script = output(&mut anyloop(["completions", shell]));
    assert!(script.status.success());
    fs::write(to, script.stdout).expect("the file can be written");
}

/// What a shell prints when it runs a script, to which the path of a file or directory is passed.
fn run(shell: &str, options: &[&str], script: &str, path: &Path) -> String {
    let mut command = Command::new(shell);
    // `$0` of `sh -c` is the first argument; fish has `$argv` only.
    command.args(options).args([OsStr::new("-c"), OsStr::new(script), path.as_os_str()]);
    command.env("HOME", path.parent().expect("it is in a directory"));
    let run = output(&mut command);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && errors.is_empty(), "{shell}: {errors}");
    String::from_utf8(run.stdout).expect("the output is UTF-8")
}

#[test]
fn bash_completes() {
    let folder = Folder::new("bash");
    let file = folder.join("anyloop");
    write_completions("bash", &file);
    let complete = "source $0; COMP_WORDS=(anyloop connect --subs); COMP_CWORD=2; \
                    _anyloop anyloop --subs connect; echo ${COMPREPLY[@]}";
    assert_eq!(run("bash", &["--norc"], complete, &file), "--subscribe\n");
}

#[test]
#[ignore = "needs zsh; ./dev features runs it"]
fn zsh_loads_the_completions() {
    let folder = Folder::new("zsh");
    let functions = folder.join("functions");
    fs::create_dir(&functions).expect("the directory can be made");
    write_completions("zsh", &functions.join("_anyloop"));
    run("zsh", &["-f"], "zsh -f -n $0/_anyloop", &functions);
    let load = "fpath=($0 $fpath); autoload -U compinit; compinit -D -u; \
                autoload +X _anyloop; print $_comps[anyloop]";
    assert_eq!(run("zsh", &["-f"], load, &functions), "_anyloop\n");
}

#[test]
#[ignore = "needs fish; ./dev features runs it"]
fn fish_completes() {
    let folder = Folder::new("fish");
    let file = folder.join("anyloop.fish");
    write_completions("fish", &file);
    let complete = "source $argv; complete --do-complete='anyloop connect --subs'";
    let completed = run("fish", &["--no-config"], complete, &file);
    assert!(completed.starts_with("--subscribe\t"), "{completed}");
}

#[test]
fn manual_pages_are_written() {
    let folder = Folder::new("man");
    let path = folder.join("");
    let ended = Running::start(anyloop(["man"]).arg(&path)).end();
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
    for (page, word) in [("anyloop.1", "anyloop bench"), ("anyloop-connect.1", "reconnect")] {
        let page = fs::read_to_string(path.join(page)).expect("the page was written");
        assert!(page.contains(".TH anyloop") && page.contains(word), "{page}");
    }
    let page = fs::read_to_string(path.join("anyloop-connect.1")).expect("the page was written");
    for section in ["DESCRIPTION", "OPTIONS", "EXAMPLES\n.nf", "EXIT STATUS\n.TP"] {
        assert_eq!(page.matches(&format!("\n.SH {section}")).count(), 1, "{section}: {page}");
    }
    assert!(!page.contains(".SH EXTRA"), "{page}");
    let ended = Running::start(&mut anyloop(["man", "/no/such/directory"])).end();
    ended.expect(2, "cannot write to /no/such/directory: it is not a directory");
}

#[test]
#[ignore = "needs groff; ./dev features runs it"]
fn manual_pages_keep_the_lines_of_examples() {
    let folder = Folder::new("groff");
    let path = folder.join("");
    assert_eq!(Running::start(anyloop(["man"]).arg(&path)).end().code(), Some(0));
    let mut groff = Command::new("groff");
    groff
        .args(["-man", "-Tascii", "-ww", "-rLL=80n", "-P-cbou"])
        .arg(path.join("anyloop-connect.1"));
    let rendered = output(&mut groff);
    assert_eq!(String::from_utf8_lossy(&rendered.stderr), "");
    let page = String::from_utf8(rendered.stdout).expect("the page is ASCII");
    let lines: Vec<_> = page.lines().collect();
    let longest = lines.iter().max_by_key(|line| line.len());
    assert!(longest.is_some_and(|line| line.len() <= 80), "{longest:?}");
    for expected in [
        &[
            "   anyloop connect wss://example.com/chat -H 'Authorization: Bearer TOKEN'",
            "       Talk to a server. /help lists what can be typed beside messages.",
        ][..],
        &["       2   wrong arguments, or a file that they name cannot be opened"],
    ] {
        assert!(
            lines.windows(expected.len()).any(|lines| lines == expected),
            "{expected:?}: {page}"
        );
    }
}

#[test]
fn help_fits_a_terminal_of_80_columns() {
    for command in
        [&[][..], &["serve"], &["connect"], &["bench"], &["pipe"], &["completions"], &["man"]]
    {
        for option in ["-h", "--help"] {
            let mut anyloop = anyloop(command);
            let help = output(anyloop.arg(option).env("COLUMNS", "80"));
            let help = String::from_utf8(help.stdout).expect("the help is UTF-8");
            assert!(help.contains("Usage: anyloop"), "{help}");
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{command:?} {option}: {line}");
            }
        }
    }
}
