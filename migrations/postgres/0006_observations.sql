-- Who was asked for a challenge's proof, and what they saw: JSON array, NULL before anybody was.
ALTER TABLE challenges ADD COLUMN observations TEXT;
