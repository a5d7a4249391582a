//! Child processes: their own group, a deadline, an unprivileged user, their output as a stream.
