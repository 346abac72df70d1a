-- Who may have an account: server invites, codes by phone, disabled accounts, server admins.

ALTER TABLE users
  ADD COLUMN is_admin     boolean NOT NULL DEFAULT false,
  -- Set while the account may not be used. The profile stays visible, messages still reach it.
  ADD COLUMN disabled_at  timestamptz(3);
-- Few, and asked for with every list of members that is loaded.
CREATE INDEX users_disabled ON users (id) WHERE disabled_at IS NOT NULL;
-- The list of accounts, newest first: ids are time-ordered, so users_pkey serves it.

-- Codes that let somebody make an account while REGISTRATION=invite. Random, 144 bits: nobody guesses one, so that it may
-- stand here as it is, for the admin who wants to look at it again.
CREATE TABLE server_invites (
  code        text PRIMARY KEY,
  -- None: made by the operator's command.
  created_by  uuid REFERENCES users,
  created_at  timestamptz(3) NOT NULL DEFAULT now(),
  expires_at  timestamptz(3) NOT NULL,
  max_uses    integer NOT NULL CHECK (max_uses > 0),
  uses        integer NOT NULL DEFAULT 0 CHECK (uses <= max_uses),
  revoked_at  timestamptz(3)
);
CREATE INDEX server_invites_created ON server_invites (created_at, code);

-- The one code that is good for a phone: a new one replaces it, using it removes it. The hash is keyed with a secret that
-- is not in the database (see src/modules/auth/codes.ts).
CREATE TABLE phone_codes (
  phone       text PRIMARY KEY,
  -- Changes with each code, so that whoever checked one cannot use its successor.
  id          uuid NOT NULL,
  hash        bytea NOT NULL,
  tries       integer NOT NULL DEFAULT 0,
  expires_at  timestamptz(3) NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX phone_codes_expiry ON phone_codes (expires_at);
