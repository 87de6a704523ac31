-- A certificate's `duration`, where its issuer asks that of the CA.

ALTER TABLE orders ADD COLUMN not_after INTEGER; -- when the certificate is to end; NULL leaves that to the CA
