alter table customers add primary key (id), add unique (email);
alter table orders add primary key (id);
alter table order_items add primary key (order_id, line);
alter table payments add primary key (id);
alter table order_events add primary key (id);

alter table orders add foreign key (customer_id) references customers;
alter table payments add foreign key (order_id) references orders;
create index on orders (customer_id);
create index on payments (order_id);

grant select, insert, update, delete on all tables in schema public to orders_app;
grant usage, select on all sequences in schema public to orders_app;
analyze;
