//! Shell completions and manual pages, made of the command line's own declaration, so that neither can lag behind it.
//!
//! Makes text; whoever packages tailwire decides where it goes.

use clap::error::ErrorKind;
use clap::{Command, Error};
use clap_complete::Shell;

/// The completions of one shell.
pub(super) fn completions(mut line: Command, shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut line, NAME, &mut text);
    text
}

/// A page in section 1: of the program, or of the named command as `tailwire-NAME`.
///
/// # Errors
/// There is no such command.
pub(super) fn manual(mut line: Command, command: Option<&str>) -> Result<Vec<u8>, Error> {
    line.build();
    let page = match command {
        None => line,
        Some(name) => match line.find_subcommand(name) {
            Some(found) => found.clone(),
            None => {
                return Err(line.error(ErrorKind::InvalidSubcommand, format!("there is no command `{name}`")));
            }
        },
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).map_err(Error::from)?;
    Ok(text)
}

const NAME: &str = "tailwire";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::CommandLine;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn every_shell_completes_every_command() {
        let shells = <Shell as clap::ValueEnum>::value_variants();
        assert!(shells.len() >= 4);
        for shell in shells {
            let text = text(completions(CommandLine::command(), *shell));
            for command in CommandLine::command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let line = CommandLine::command();
        let page = |command: Option<&str>| manual(CommandLine::command(), command).map(text);
        assert!(page(None).unwrap().contains(".TH tailwire 1"));
        for command in line.get_subcommands() {
            let page = page(Some(command.get_name())).unwrap();
            assert!(page.contains(".SH SYNOPSIS") && page.contains(command.get_name()), "{page}");
        }
        assert!(page(Some("run")).unwrap().contains("OPENAI_BASE_URL"));
        assert_eq!(page(Some("nonsense")).unwrap_err().exit_code(), 2);
    }
}
