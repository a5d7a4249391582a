-- Rows from :seed alone: the same seed makes the same shop. Orders go back in time, one every 40 seconds.
insert into customers (id, name, email, created_at)
select i,
       'Customer ' || i,
       'c' || i || '.' || to_hex(hashint8extended(i, :seed) & 1048575) || '@shop.example',
       now() - interval '900 days' + interval '1 second' * (hashint8extended(i, :seed + 1) & 67108863)
from generate_series(1, :customers) as i;

insert into orders (id, customer_id, status, total_cents, note, created_at)
select i,
       1 + (hashint8extended(i, :seed + 2) & 2147483647) % :customers,
       (array['placed', 'paid', 'packed', 'shipped', 'returned'])[1 + (hashint8extended(i, :seed + 3) & 1023) % 5],
       500 + (hashint8extended(i, :seed + 4) & 65535),
       md5((i + :seed)::text),
       now() - interval '40 seconds' * (:orders - i + 1)
from generate_series(1, :orders) as i;

insert into order_items (order_id, line, sku, quantity, price_cents)
select i,
       line,
       'SKU-' || lpad(((hashint8extended(i * 10 + line, :seed + 5) & 65535))::text, 6, '0'),
       1 + (hashint8extended(i * 10 + line, :seed + 6) & 3),
       199 + (hashint8extended(i * 10 + line, :seed + 7) & 8191)
from generate_series(1, :orders) as i, generate_series(1, 2 + (i % 2)) as line;

insert into payments (id, order_id, amount_cents, method, paid_at)
select id, id, total_cents, (array['card', 'transfer', 'invoice'])[1 + id % 3], created_at + interval '5 seconds'
from orders;

select setval(pg_get_serial_sequence('customers', 'id'), :customers);
select setval(pg_get_serial_sequence('orders', 'id'), :orders);
select setval(pg_get_serial_sequence('payments', 'id'), :orders);
