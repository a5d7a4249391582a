-- What a shop does besides taking orders: the desk looks at orders and writes down what happened, in small transactions.
do $$
declare
    rounds constant integer := ROUNDS;
    size constant integer := SIZE;
    newest bigint;
begin
    for round in 1..rounds loop
        select max(id) into newest from orders;
        insert into order_events (order_id, kind, detail)
        select 1 + (hashint8extended(i, round) & 2147483647) % newest, 'status', repeat(md5(i::text || round), 4)
        from generate_series(1, size) as i;
        update orders
        set status = 'shipped'
        where id in (select 1 + (hashint8extended(i, -round) & 2147483647) % newest from generate_series(1, size / 10) as i);
        commit;
    end loop;
end
$$;
