-- What the alarms ask for at each scrape: those whose attempts fail, and those that near their end. Both are few.
CREATE INDEX certificates_failing ON certificates (COALESCE(not_after, 9223372036854775807)) WHERE failed_attempts > 0;
CREATE INDEX expiry_watches_told ON expiry_watches (told) WHERE told IS NOT NULL AND told <> 'expired';
