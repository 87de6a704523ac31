-- Fails where a fenced write has not found its row, and with it the statement of which that was a part: the
-- writes of a transaction that asks nothing are one statement. The detail says whose lease it was.
CREATE FUNCTION lease_held(written BIGINT, lease UUID) RETURNS BOOLEAN LANGUAGE plpgsql AS $$
BEGIN
    IF written <> 1 THEN
        RAISE EXCEPTION 'the lease on % was lost', lease USING ERRCODE = 'LL001', DETAIL = lease::text;
    END IF;
    RETURN TRUE;
END
$$;

-- Found by events_latest as well: each event has one entry less to make.
DROP INDEX events_by_resource;
