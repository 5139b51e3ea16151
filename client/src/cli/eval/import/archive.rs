//! The zip archives that Inspect AI writes: members deflated, or compressed with Zstandard (method 93), which is what its
//! present releases do. Every member's checksum is checked, and what they unpack to is bounded.

use std::io::{Cursor, Read as _};

use ruzstd::decoding::StreamingDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::ImportError;

/// What an archive begins with.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";
/// What one archive may unpack to.
const UNPACKED: u64 = 1 << 30;

/// An archive in memory.
pub(super) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    left: u64,
}

impl<'a> Archive<'a> {
    pub(super) fn open(data: &'a [u8]) -> Result<Self, ImportError> {
        let zip = ZipArchive::new(Cursor::new(data))
            .map_err(|error| ImportError::Broken(format!("its archive cannot be read: {error}")))?;
        Ok(Self { zip, left: UNPACKED })
    }

    /// Names of the members, as the archive's directory lists them.
    pub(super) fn names(&self) -> Result<Vec<String>, ImportError> {
        let name = |name: zip::result::ZipResult<std::borrow::Cow<'_, str>>| name.map(Into::into);
        let names: Result<Vec<String>, _> = self.zip.file_names().map(name).collect();
        names.map_err(|error| ImportError::Broken(format!("its archive cannot be read: {error}")))
    }

    /// A member, unpacked and checked.
    pub(super) fn read(&mut self, name: &str) -> Result<Vec<u8>, ImportError> {
        let broken = |why: String| ImportError::Broken(format!("member {name} {why}"));
        let index = self.zip.index_for_name(name);
        let index = index.ok_or_else(|| broken("is missing".to_owned()))?;
        let mut member = self
            .zip
            .by_index_raw(index)
            .map_err(|error| broken(format!("cannot be read: {error}")))?;
        let (size, crc, method) = (member.size(), member.crc32(), member.compression());
        if size > self.left {
            let most = UNPACKED >> 20;
            return Err(broken(format!("is too large: all together may unpack to {most} MiB")));
        }
        self.left -= size;
        let mut packed = Vec::new();
        member
            .read_to_end(&mut packed)
            .map_err(|error| broken(format!("cannot be read: {error}")))?;
        let data = unpack(&packed, method, size).map_err(broken)?;
        if data.len() as u64 != size {
            return Err(broken(format!("unpacks to {} bytes and not to {size}", data.len())));
        }
        if crc32fast::hash(&data) != crc {
            return Err(broken("does not match its checksum".to_owned()));
        }
        Ok(data)
    }
}

fn unpack(packed: &[u8], method: CompressionMethod, size: u64) -> Result<Vec<u8>, String> {
    let mut data = Vec::new();
    // One byte more than it may be shows that it is too long.
    let most = size.saturating_add(1);
    let read = match method {
        CompressionMethod::Stored => packed.take(most).read_to_end(&mut data),
        CompressionMethod::DEFLATE => {
            flate2::read::DeflateDecoder::new(packed).take(most).read_to_end(&mut data)
        }
        CompressionMethod::ZSTD => StreamingDecoder::new(packed)
            .map_err(|error| format!("does not unpack: {error}"))?
            .take(most)
            .read_to_end(&mut data),
        other => return Err(format!("is compressed by {other}, which is not read")),
    };
    read.map(|_| data).map_err(|error| format!("does not unpack: {error}"))
}
