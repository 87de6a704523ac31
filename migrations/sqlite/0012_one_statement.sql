-- Found by events_latest as well: each event has one entry less to make.
DROP INDEX events_by_resource;
