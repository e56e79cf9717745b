-- The key that signed a token; absent where that was not noted yet.
ALTER TABLE tokens ADD COLUMN key_id TEXT;
