-- One index of ends serves lists by their order, ready ones and others, and the metrics: each certificate that is added
-- or saved has to be noted in fewer.
DROP INDEX certificates_by_expiry;
DROP INDEX certificates_unissued;
