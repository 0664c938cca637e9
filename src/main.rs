//! The door: parse, build the runtime, run, exit. Decides nothing; commands and exit codes are `tailwire::cli`'s.

use std::process::ExitCode;

use tailwire::cli;

// The system's allocator keeps what one large body made it fetch; this one gives it back within seconds.
#[cfg(feature = "dist")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's start-up options: a background thread returns unused pages after one second.
#[cfg(feature = "dist")]
#[allow(
    unsafe_code,
    reason = "jemalloc reads its options from a symbol of this name, before main; it cannot clash"
)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: Option<&'static std::ffi::c_char> = {
    const TEXT: &std::ffi::CStr = c"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:1000";
    // SAFETY: the pointer comes from a static C string, which is not empty and never goes away.
    unsafe { TEXT.as_ptr().as_ref() }
};

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => return cli::answer(&error),
    };
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(cli::run(command)),
        Err(error) => cli::fail(&error),
    }
}
