//! `luthier completions SHELL` and `luthier man`: both are made from the same description of the command line that reads it.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::print_text;

/// What follows `luthier completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn completions(arguments: &Arguments) {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::Arguments::command(), "luthier", &mut text);
    print_text(&String::from_utf8_lossy(&text));
}

/// The page of the program, then a page of each command, for `man -l`.
pub(crate) fn man() -> anyhow::Result<()> {
    let command = crate::Arguments::command();
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        // A man page has no leading path, so the name of a command carries it.
        let name: &'static str = Box::leak(format!("luthier-{}", subcommand.get_name()).into_boxed_str());
        clap_mangen::Man::new(subcommand.clone().name(name)).render(&mut text)?;
    }
    print_text(&String::from_utf8_lossy(&text));
    Ok(())
}
