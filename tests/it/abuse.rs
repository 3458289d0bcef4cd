//! Who does everything wrong at once, beside ten people who work.
