use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;

use super::{EXIT_CODES, FIRST_STEPS};

/// The manual: one page with every command, since one file is what people install.
pub(super) fn page(program: Command) -> io::Result<Vec<u8>> {
    let mut program = program.after_help("");
    program.build();
    let mut page = Vec::new();
    let top = Man::new(program.clone());
    top.render_title(&mut page)?;
    top.render_name_section(&mut page)?;
    writeln!(
        page,
        ".SH SYNOPSIS\n\\fBvncgate\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n.SH COMMANDS"
    )?;
    for command in program.get_subcommands() {
        write_commands(command, &mut page)?;
    }
    write_as_is("EXAMPLES", FIRST_STEPS, &mut page)?;
    writeln!(page, ".SH ENVIRONMENT\n{ENVIRONMENT}")?;
    write_as_is("EXIT STATUS", EXIT_CODES, &mut page)?;
    write_as_is("FILES", FILES, &mut page)?;
    Ok(page)
}

const FILES: &str = "\
/etc/vncgate/vncgate.toml
        the config; `vncgate config example` prints every key with its meaning
/run/vncgate/admin.sock, $XDG_RUNTIME_DIR/vncgate/admin.sock
        where a running vncgate takes commands, for root and for others";

const ENVIRONMENT: &str = "\
Every option has a twin, such as VNCGATE_LISTEN for \\-\\-listen; the option beats the variable, \
which beats the config. NO_COLOR, if set, keeps colours out of the log.";

/// The command itself, or those below it.
fn write_commands(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    if command.has_subcommands() {
        let below = command.get_subcommands();
        return below
            .into_iter()
            .try_for_each(|each| write_commands(each, page));
    }
    let switch = |name| {
        command
            .get_arguments()
            .any(|argument| argument.get_id() == name)
    };
    let shown = ["help", "version"].into_iter().filter(|name| switch(*name));
    let command = shown.fold(command.clone(), |command, name| {
        command.mut_arg(name, |argument| argument.hide(true))
    });
    if command.get_name() == "help" {
        return Ok(());
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage
        .trim_start_matches("Usage:")
        .trim()
        .replace('-', "\\-");
    let about = command.get_about().map(ToString::to_string);
    writeln!(page, ".SS {usage}\n{}", about.unwrap_or_default())?;
    let mut options = Vec::new();
    Man::new(command).render_options_section(&mut options)?;
    let options = String::from_utf8_lossy(&options);
    let body = options.lines().filter(|line| !line.starts_with(".SH"));
    body.into_iter()
        .try_for_each(|line| writeln!(page, "{line}"))
}

fn write_as_is(title: &str, text: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    writeln!(page, ".SH {title}\n.nf\n{text}\n.fi")
}
