-- What belongs together: a traceparent of W3C Trace Context, or the trace's identifier alone. NULL: not known.

ALTER TABLE certificates ADD COLUMN trace    TEXT; -- of the issuance that is or was last under way
ALTER TABLE orders       ADD COLUMN trace    TEXT;
ALTER TABLE messages     ADD COLUMN trace    TEXT; -- of what brought it about
ALTER TABLE events       ADD COLUMN trace_id TEXT; -- of the last time
