//! Sizes as people write them: `256MiB`, `1GiB`, `8M`.

/// Bytes of a size; the units are powers of 1024.
///
/// # Errors
/// A sentence saying what is wrong.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err("write it like 256MiB or 1GiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write it like 256MiB or 1GiB".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is too large".to_owned())
}

/// A size in words.
#[must_use]
pub fn words(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if bytes >= size {
            return format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse("256MiB"), Ok(256 << 20));
        assert_eq!(parse(" 8 m "), Ok(8 << 20));
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        assert_eq!(parse("4096"), Ok(4096));
        for bad in ["", "MiB", "1TB", "-1M", "99999999999999999999", "18446744073709551615G"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_are_short() {
        assert_eq!(words(256 << 20), "256.0 MiB");
        assert_eq!(words(1536), "1.5 KiB");
        assert_eq!(words(7), "7 B");
    }
}
