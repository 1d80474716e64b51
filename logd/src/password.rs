//! Password hashes: Argon2id, as PHC strings that carry their own parameters.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use schema::login::LoginError;
use store::dao::is_disabled;

use crate::config::LoginConfig;

/// Bytes of salt, as RFC 9106 recommends.
const SALT_BYTES: usize = 16;

/// Hashes and verifies. Every call takes the time and the memory that the configuration asks for.
pub(crate) struct Hasher {
    argon2: Argon2<'static>,
    /// The hash of a password that nobody knows, with this configuration's parameters.
    dummy: String,
}

impl Hasher {
    /// Hashes once.
    pub(crate) fn new(config: &LoginConfig) -> Result<Self, LoginError> {
        let params = Params::new(config.hash_memory_kib, config.hash_passes, 1, None)
            .map_err(|error| defect("the parameters of Argon2 are refused", &error))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut hasher = Self { argon2, dummy: String::new() };
        let mut unknown = [0; 32];
        random(&mut unknown)?;
        hasher.dummy = hasher.hash_bytes(&unknown)?;
        Ok(hasher)
    }

    /// The PHC string of a password, with a new salt.
    pub(crate) fn hash(&self, password: &str) -> Result<String, LoginError> {
        self.hash_bytes(password.as_bytes())
    }

    fn hash_bytes(&self, password: &[u8]) -> Result<String, LoginError> {
        let mut salt = [0; SALT_BYTES];
        random(&mut salt)?;
        let hash = self.argon2.hash_password_with_salt(password, &salt);
        hash.map(|hash| hash.to_string()).map_err(|error| defect("a password cannot be hashed", &error))
    }

    /// Whether the password is the one of `stored`, whatever parameters that was made with. Without `stored`, where there
    /// is no such user, it is never right, and finding that out takes as long.
    pub(crate) fn verify(&self, password: &str, stored: Option<&str>) -> Result<bool, LoginError> {
        // Of an account that is disabled no password is right.
        let stored = stored.filter(|stored| !is_disabled(stored));
        let hash = PasswordHash::new(stored.unwrap_or(&self.dummy))
            .map_err(|error| defect("a stored password hash is damaged", &error))?;
        match self.argon2.verify_password(password.as_bytes(), &hash) {
            Ok(()) => Ok(stored.is_some()),
            Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(defect("a password cannot be verified", &error)),
        }
    }
}

/// Fills `bytes` from the operating system's random source.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), LoginError> {
    getrandom::fill(bytes).map_err(|error| defect("the system gives no random bytes", &error))
}

fn defect(what: &str, error: &dyn std::fmt::Display) -> LoginError {
    log::error!("{what}: {error}");
    LoginError::Internal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher(memory: u32, passes: u32) -> Hasher {
        let config = LoginConfig { hash_memory_kib: memory, hash_passes: passes, ..LoginConfig::default() };
        Hasher::new(&config).unwrap()
    }

    #[test]
    fn a_hash_made_with_other_parameters_still_verifies() {
        let old = hasher(8, 1).hash("correct horse").unwrap();
        let new = hasher(64, 2);
        assert_eq!(new.verify("correct horse", Some(&old)), Ok(true));
        assert_eq!(new.verify("wrong horse", Some(&old)), Ok(false));
    }

    #[test]
    fn equal_passwords_have_different_hashes() {
        let hasher = hasher(8, 1);
        assert_ne!(hasher.hash("correct horse").unwrap(), hasher.hash("correct horse").unwrap());
    }

    #[test]
    fn the_dummy_costs_what_a_real_hash_costs_and_lets_nobody_in() {
        let hasher = hasher(64, 3);
        let real = hasher.hash("correct horse").unwrap();
        let cost = |phc: &str| phc.split('$').nth(3).map(str::to_owned);
        assert_eq!(cost(&hasher.dummy), cost(&real));
        assert_eq!(cost(&real).as_deref(), Some("m=64,t=3,p=1"));
        assert_eq!(hasher.verify("correct horse", None), Ok(false));
    }

    #[test]
    fn a_disabled_account_lets_nobody_in() {
        let hasher = hasher(8, 1);
        let hash = hasher.hash("correct horse").unwrap();
        assert_eq!(hasher.verify("correct horse", Some(&format!("!{hash}"))), Ok(false));
        assert_eq!(hasher.verify("correct horse", Some("!")), Ok(false));
    }

    #[test]
    fn a_damaged_hash_is_an_error_and_not_a_login() {
        assert_eq!(hasher(8, 1).verify("correct horse", Some("no hash")), Err(LoginError::Internal));
    }
}
