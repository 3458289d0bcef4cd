use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;

/// Gives up for good what this program never needs: core dumps, which would hold tokens and keys, and
/// privileges that a program it starts could gain (set-user-id bits, file capabilities).
///
/// To be called while the process has one thread: the second counts for the calling thread and those
/// it starts. Returns what did not work, in words; nothing of it keeps the program from running.
pub fn harden() -> Vec<String> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let steps = [
        ("core dumps stay on", setrlimit(Resource::Core, none)),
        (
            "the memory can be read by others of this user",
            set_dumpable_behavior(DumpableBehavior::NotDumpable),
        ),
        (
            "started programs may gain privileges",
            set_no_new_privs(true),
        ),
    ];
    let failed = steps.into_iter().filter_map(|(what, done)| {
        let error = done.err()?;
        Some(format!("{what}: {error}"))
    });
    failed.collect()
}
