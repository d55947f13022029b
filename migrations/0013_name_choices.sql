-- Owners pick names: what a name looks like, and who may have a released one back.
--
-- skeleton is the name with everything folded that people can't tell apart (control-plane/src/domain/label.rs). Its index lets
-- nobody take a name that looks like another's, also when two come at once. NULL is no claim to a look: a row of older code, which
-- a job fills in, or a released name whose owner took another spelling of it.
ALTER TABLE names ADD COLUMN skeleton VARCHAR(253);
-- The account that had the name when it was released: it alone may take it back before quarantined_until. No foreign key: it may
-- be gone.
ALTER TABLE names ADD COLUMN released_by VARCHAR(36);
CREATE UNIQUE INDEX names_skeleton ON names (skeleton);
