//! Walks over the values of an RDB.

use std::io::Read;

use super::RdbError;
use super::source::Source;

const STREAM_2: u8 = 19;
const STREAM_3: u8 = 21;
const STREAM_4: u8 = 26;
const STREAM_5: u8 = 27;

/// Skips one value of the type `kind` (whose byte stood at `offset`) and names its type as Redis does.
pub fn skip<R: Read>(
    source: &mut Source<R>,
    kind: u8,
    offset: u64,
    with_field_expiry: &mut u64,
) -> Result<&'static str, RdbError> {
    Ok(match kind {
        0 => {
            source.skip_string()?;
            "string"
        }
        1 | 14 => {
            each(source, Source::skip_string)?;
            "list"
        }
        18 => {
            each(source, |source| {
                source.length()?;
                source.skip_string()
            })?;
            "list"
        }
        10 => {
            source.skip_string()?;
            "list"
        }
        2 => {
            each(source, Source::skip_string)?;
            "set"
        }
        11 | 20 => {
            source.skip_string()?;
            "set"
        }
        3 => {
            each(source, |source| {
                source.skip_string()?;
                skip_text_score(source)
            })?;
            "zset"
        }
        5 => {
            each(source, |source| {
                source.skip_string()?;
                source.skip(8)
            })?;
            "zset"
        }
        12 | 17 => {
            source.skip_string()?;
            "zset"
        }
        4 => {
            each(source, |source| {
                source.skip_string()?;
                source.skip_string()
            })?;
            "hash"
        }
        9 | 13 | 16 => {
            source.skip_string()?;
            "hash"
        }
        22 | 24 => {
            *with_field_expiry += 1;
            source.skip(if kind == 24 { 8 } else { 0 })?;
            each(source, |source| {
                source.length()?;
                source.skip_string()?;
                source.skip_string()
            })?;
            "hash"
        }
        23 | 25 => {
            *with_field_expiry += 1;
            source.skip(if kind == 25 { 8 } else { 0 })?;
            source.skip_string()?;
            "hash"
        }
        15 | STREAM_2 | STREAM_3 | STREAM_4 | STREAM_5 => {
            skip_stream(source, kind)?;
            "stream"
        }
        7 => {
            source.length()?;
            skip_module_parts(source)?;
            "module"
        }
        28 => {
            skip_array(source)?;
            "array"
        }
        other => return Err(RdbError::Unknown { offset, what: format!("a value of type {other}") }),
    })
}

/// Data of a module that belongs to no key.
pub fn skip_module_aux<R: Read>(source: &mut Source<R>) -> Result<(), RdbError> {
    source.length()?; // the module
    source.length()?; // the opcode of the next
    source.length()?; // before or behind the keys
    skip_module_parts(source)
}

fn each<R: Read>(
    source: &mut Source<R>,
    mut skip: impl FnMut(&mut Source<R>) -> Result<(), RdbError>,
) -> Result<(), RdbError> {
    let items = source.length()?;
    (0..items).try_for_each(|_| skip(source))
}

/// A score of before version 8: text behind its length, or one of three special lengths.
fn skip_text_score<R: Read>(source: &mut Source<R>) -> Result<(), RdbError> {
    match source.byte()? {
        253..=255 => Ok(()),
        length => source.skip(u64::from(length)),
    }
}

fn skip_module_parts<R: Read>(source: &mut Source<R>) -> Result<(), RdbError> {
    loop {
        let offset = source.offset();
        match source.length()? {
            0 => return Ok(()),
            1 | 2 => source.length().map(|_| ())?,
            3 => source.skip(4)?,
            4 => source.skip(8)?,
            5 => source.skip_string()?,
            other => return Err(RdbError::Damaged { offset, what: format!("{other} begins no part of a module") }),
        }
    }
}

fn skip_stream<R: Read>(source: &mut Source<R>, kind: u8) -> Result<(), RdbError> {
    let lengths = |source: &mut Source<R>, n: usize| (0..n).try_for_each(|_| source.length().map(|_| ()));
    each(source, |source| {
        source.skip_string()?;
        source.skip_string()
    })?;
    // Length and last id; then first id, greatest deleted id, entries added.
    lengths(source, if kind >= STREAM_2 { 8 } else { 3 })?;
    // Groups: name, last id, entries read; entries pending; consumers with theirs.
    each(source, |source| {
        source.skip_string()?;
        lengths(source, if kind >= STREAM_2 { 3 } else { 2 })?;
        each(source, |source| {
            source.skip(16 + 8)?;
            source.length().map(|_| ())
        })?;
        each(source, |source| {
            source.skip_string()?;
            source.skip(if kind >= STREAM_3 { 16 } else { 8 })?;
            each(source, |source| source.skip(16))
        })?;
        if kind >= STREAM_5 { each(source, |source| source.skip(16)) } else { Ok(()) }
    })?;
    if kind < STREAM_4 {
        return Ok(());
    }
    // Idempotent producers: duration and capacity, what each sent, totals.
    lengths(source, 2)?;
    each(source, |source| {
        source.skip_string()?;
        each(source, |source| {
            source.skip_string()?;
            lengths(source, 2)
        })
    })?;
    lengths(source, 2)
}

fn skip_array<R: Read>(source: &mut Source<R>) -> Result<(), RdbError> {
    let items = source.length()?;
    if source.length()? == 1 {
        source.length()?;
    }
    (0..items).try_for_each(|_| {
        source.length()?;
        let offset = source.offset();
        match source.length()? {
            0 | 3 => source.skip_string(),
            1 | 2 => source.skip(8),
            other => Err(RdbError::Damaged { offset, what: format!("{other} is no type of an array's element") }),
        }
    })
}
