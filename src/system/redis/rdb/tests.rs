use super::*;

/// An RDB with these bytes between header and end, and the right checksum.
fn rdb(version: u32, body: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("REDIS{version:04}").into_bytes();
    bytes.extend(body.concat());
    bytes.push(255);
    if version >= 5 {
        let crc = crc::crc64(0, &bytes);
        bytes.extend(crc.to_le_bytes());
    }
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&[text.len() as u8][..], text.as_bytes()].concat()
}

fn key(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &text(name), value].concat()
}

#[test]
fn keys_are_counted_by_database_type_and_prefix() {
    let survey = survey(
        &rdb(
            10,
            &[
                &[&[250][..], &text("redis-ver"), &text("7.0.15")].concat(),
                &[&[250][..], &text("ctime"), &[0xc2], &1_763_715_751_i32.to_le_bytes()].concat(),
                &[&[245][..], &text("#!lua name=f")].concat(),
                &[254, 0, 251, 3, 1],
                &key(0, "cart:1", &text("x")),
                &[252],
                &5_000_i64.to_le_bytes(),
                &[249, 7],
                &key(0, "cart:2", &[0xc0, 5]),
                &[248, 9],
                &key(1, "plain", &[&[2][..], &text("a"), &text("b")].concat()),
                &[254, 3, 253],
                &9_i32.to_le_bytes(),
                &key(5, "board:1", &[&[1][..], &text("m"), &[0; 8]].concat()),
            ],
        )[..],
    )
    .unwrap();
    assert_eq!((survey.keys, survey.with_expiry, survey.functions), (4, 2, 1));
    assert_eq!(survey.by_db, BTreeMap::from([(0, 3), (3, 1)]));
    let pairs = |map: &BTreeMap<String, u64>| map.iter().map(|(k, n)| format!("{k}={n}")).collect::<Vec<_>>().join(" ");
    assert_eq!(pairs(&survey.by_type), "list=1 string=2 zset=1");
    assert_eq!(pairs(&survey.by_prefix), "(none)=1 board=1 cart=2");
    assert_eq!((survey.redis_version.as_str(), survey.created), ("7.0.15", Some(1_763_715_751)));
    assert!(survey.checksummed);
    assert_eq!(survey.expired_at(4_999), (0, 0));
    assert_eq!(survey.expired_at(5_000), (0, 1));
    assert_eq!(survey.expired_at(6_000), (1, 1));
    assert_eq!(survey.expired_at(20_000), (2, 2));
}

/// What no server on a test machine writes: the encodings of Redis 7.2 and later, and of old ones.
#[test]
fn every_known_encoding_is_walked_over() {
    let one = |bytes: &[u8]| [&[1][..], bytes].concat();
    let pair = [text("f"), text("v")].concat();
    let id = [0; 16];
    let group = |seen: usize, nacked: &[u8]| {
        [
            &text("g")[..],
            &[0, 0, 0],
            &one(&[&id[..], &[0; 8], &[1]].concat()),
            &[1],
            &text("c"),
            &vec![0; seen],
            &one(&id),
        ]
        .concat()
        .into_iter()
        .chain(nacked.iter().copied())
        .collect::<Vec<u8>>()
    };
    let stream =
        |ids: usize, group: &[u8]| [&one(&[text("k"), text("v")].concat())[..], &vec![0; ids], &[1], group].concat();
    let producers = [&[9, 9][..], &one(&[&text("p")[..], &one(&[&text("i")[..], &[0, 0]].concat())].concat()), &[0, 0]];
    let cases: Vec<(u8, &str, Vec<u8>)> = vec![
        (2, "set", one(&text("m"))),
        (3, "zset", [&[3][..], &text("a"), &[2, b'1', b'2'], &text("b"), &[255], &text("c"), &[253]].concat()),
        (4, "hash", one(&pair)),
        (
            7,
            "module",
            [&[0x81][..], &[7; 8], &[1, 5, 2, 5, 3], &[0; 4], &[4], &[0; 8], &[5], &text("s"), &[0]].concat(),
        ),
        (10, "list", text("zl")),
        (11, "set", text("is")),
        (12, "zset", text("zl")),
        (13, "hash", text("zl")),
        (14, "list", one(&text("zl"))),
        (15, "stream", stream(3, &[&text("g")[..], &[0, 0, 0, 0]].concat())),
        (16, "hash", text("lp")),
        (17, "zset", text("lp")),
        (18, "list", one(&[&[2][..], &text("lp")].concat())),
        (19, "stream", stream(8, &group(8, &[]))),
        (20, "set", text("lp")),
        (21, "stream", stream(8, &group(16, &[]))),
        (22, "hash", one(&[&[5][..], &pair].concat())),
        (23, "hash", text("lp")),
        (24, "hash", [&[0; 8][..], &one(&[&[5][..], &pair].concat())].concat()),
        (25, "hash", [&[0; 8][..], &text("lp")].concat()),
        (26, "stream", [stream(8, &group(16, &[])), producers.concat()].concat()),
        (27, "stream", [stream(8, &group(16, &one(&id))), producers.concat()].concat()),
        (28, "array", [&[3, 1, 9][..], &[0, 1], &[0; 8], &[1, 2], &[0; 8], &[2, 3], &text("s")].concat()),
    ];
    for (kind, name, value) in &cases {
        let survey = survey(&rdb(14, &[&key(*kind, "k", value)])[..]).unwrap_or_else(|e| panic!("type {kind}: {e}"));
        assert_eq!((survey.keys, survey.by_type.keys().next().unwrap().as_str()), (1, *name), "type {kind}");
        assert_eq!(survey.with_field_expiry, u64::from((22..=25).contains(kind)), "type {kind}");
    }
    let aux = [&[247][..], &[0x81], &[7; 8], &[2, 1, 1, 5, 0], &key(0, "k", &text("v"))].concat();
    assert_eq!(survey(&rdb(9, &[&aux])[..]).unwrap().keys, 1);
    assert_eq!(survey(&rdb(12, &[&[244, 1, 1, 0], &key(0, "k", &text("v"))])[..]).unwrap().keys, 1);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let good = rdb(10, &[&[254, 0], &key(0, "cart:1", &text("hello")), &key(2, "s", &[&[1][..], &text("m")].concat())]);
    assert_eq!(survey(&good[..]).unwrap().keys, 2);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(survey(&bad[..]).is_err(), "bit {bit} flipped and nobody saw it");
    }
    for length in 0..good.len() {
        assert!(survey(&good[..length]).is_err(), "cut to {length} bytes and nobody saw it");
    }
    let longer = [&good[..], &[0]].concat();
    assert!(matches!(survey(&longer[..]), Err(RdbError::Damaged { .. })));
}

#[test]
fn a_zeroed_checksum_is_told_and_left_to_the_digest() {
    let mut bytes = rdb(10, &[&key(0, "k", &text("v"))]);
    let end = bytes.len() - 8;
    bytes[end..].fill(0);
    assert!(!survey(&bytes[..]).unwrap().checksummed);
}

#[test]
fn what_cannot_be_read_is_named() {
    assert!(matches!(survey(&rdb(15, &[])[..]), Err(RdbError::TooNew { version: 15 })));
    assert!(matches!(survey(&b"VALKEY080"[..]), Err(RdbError::NotRdb(_))));
    assert!(matches!(survey(&b"SQLite format 3"[..]), Err(RdbError::NotRdb(_))));
    assert!(matches!(survey(&b""[..]), Err(RdbError::Cut { offset: 0 })));
    let error = survey(&rdb(10, &[&key(6, "k", &[])])[..]).unwrap_err();
    assert_eq!(error.to_string(), "at byte 9 it holds a value of type 6, which this program cannot read");
}

#[test]
fn the_number_of_prefixes_is_bounded() {
    let mut counts = BTreeMap::new();
    for n in 0..PREFIXES + 50 {
        count_prefix(&mut counts, format!("p{n}:x").as_bytes());
    }
    count_prefix(&mut counts, b"p1:y");
    assert_eq!((counts.len(), counts[OTHER], counts["p1"]), (PREFIXES + 1, 50, 2));
}
