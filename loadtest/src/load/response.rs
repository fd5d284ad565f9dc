//! Responses over HTTP/1.1 as they come, bit by bit: head, then a body in chunks, of a known length, or to the end of the
//! connection.
//!
//! Deliberately absent: redirects and compression.

use super::open::Ended;

/// Longest head of a response, and longest line between two chunks, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Where in a response the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    /// A body of a known length, of which so much is to come.
    Sized(u64),
    /// A body that ends with its connection.
    Endless,
    /// The line with a chunk's size.
    ChunkSize,
    /// A chunk, of which so much is to come.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    /// The empty line behind the last chunk.
    Last,
}

/// One response after another on one connection.
#[derive(Debug)]
pub struct Responses {
    part: Part,
    /// A head or a line that is not whole yet.
    begun: Vec<u8>,
}

impl Default for Responses {
    fn default() -> Self {
        Self { part: Part::Head, begun: Vec::new() }
    }
}

impl Responses {
    /// Appends what `bytes` have of a body to `body`. Says how many of them it took, and whether the response is over.
    ///
    /// # Errors
    /// When the response is a refusal, or none.
    pub fn take(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<(usize, bool), Ended> {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let next = match self.part {
                Part::Sized(left) | Part::Chunk(left) => {
                    let len = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    body.extend(&rest[..len]);
                    used += len;
                    let left = left - len as u64;
                    match self.part {
                        Part::Sized(_) if left == 0 => return Ok((used, self.over())),
                        Part::Sized(_) => Part::Sized(left),
                        _ if left == 0 => Part::ChunkEnd,
                        _ => Part::Chunk(left),
                    }
                }
                Part::Endless => {
                    body.extend(rest);
                    return Ok((bytes.len(), false));
                }
                Part::Head => {
                    let (len, head) = self.until(rest, b"\r\n\r\n")?;
                    used += len;
                    let Some(head) = head else { continue };
                    let next = read_head(&head)?;
                    if next == Part::Sized(0) {
                        return Ok((used, self.over()));
                    }
                    next
                }
                Part::ChunkSize | Part::ChunkEnd | Part::Last => {
                    let (len, line) = self.until(rest, b"\r\n")?;
                    used += len;
                    let Some(line) = line else { continue };
                    match self.part {
                        Part::ChunkEnd => Part::ChunkSize,
                        Part::Last => return Ok((used, self.over())),
                        _ => match chunk_size(&line)? {
                            0 => Part::Last,
                            size => Part::Chunk(size),
                        },
                    }
                }
            };
            self.part = next;
        }
        Ok((used, false))
    }

    fn over(&mut self) -> bool {
        self.part = Part::Head;
        true
    }

    /// How many bytes were taken up to this end, and what stands before it, once it is there.
    fn until(&mut self, bytes: &[u8], end: &[u8]) -> Result<(usize, Option<Vec<u8>>), Ended> {
        let before = self.begun.len();
        self.begun.extend(&bytes[..bytes.len().min(HEAD_BYTES_MAX)]);
        // The end may have begun in what came before.
        let from = before.saturating_sub(end.len() - 1);
        match memchr::memmem::find(&self.begun[from..], end) {
            Some(at) => {
                let len = from + at + end.len() - before;
                let mut found = std::mem::take(&mut self.begun);
                found.truncate(from + at);
                Ok((len, Some(found)))
            }
            None if self.begun.len() > HEAD_BYTES_MAX => Err(Ended::Strange("an endless answer".to_owned())),
            None => Ok((self.begun.len() - before, None)),
        }
    }
}

fn read_head(head: &[u8]) -> Result<Part, Ended> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default().to_ascii_uppercase();
    if !status.starts_with("HTTP/1.1 2") {
        return Err(Ended::Refused(status));
    }
    let field = |name: &str| lines.clone().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let length = field("content-length").and_then(|length| length.trim().parse().ok());
    match (field("transfer-encoding"), length) {
        (Some(coding), _) if coding.trim() == "chunked" => Ok(Part::ChunkSize),
        (None, Some(length)) => Ok(Part::Sized(length)),
        (None, None) if status.starts_with("HTTP/1.1 204") => Ok(Part::Sized(0)),
        (None, None) if field("connection").is_some_and(|option| option.trim() == "close") => {
            Ok(Part::Endless)
        }
        _ => Err(Ended::Strange("a response whose end cannot be told".to_owned())),
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, Ended> {
    let size = std::str::from_utf8(line).ok().and_then(|line| line.split(';').next());
    let size = size.and_then(|size| u64::from_str_radix(size.trim(), 16).ok());
    size.ok_or_else(|| Ended::Strange("a chunk without a size".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n\
        HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nfgHTTP/1.1 204 No Content\r\n\r\n";

    #[test]
    fn bodies_come_whole_however_the_bytes_are_cut() {
        for step in 1..=TWO.len() {
            let (mut responses, mut body, mut over) = (Responses::default(), Vec::new(), 0);
            for part in TWO.as_bytes().chunks(step) {
                let mut at = 0;
                while at < part.len() {
                    let (used, is_over) = responses.take(&part[at..], &mut body).unwrap();
                    at += used;
                    over += u32::from(is_over);
                }
            }
            assert_eq!((body.as_slice(), over), (b"abcdefg".as_slice(), 3), "{step}");
        }
    }

    #[test]
    fn a_body_that_ends_with_its_connection_is_never_over() {
        let said = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc";
        let (mut responses, mut body) = (Responses::default(), Vec::new());
        for byte in said {
            assert_eq!(responses.take(&[*byte], &mut body).unwrap(), (1, false));
        }
        assert_eq!(body, b"abc");
        let unknown = Responses::default().take(b"HTTP/1.1 200 OK\r\n\r\n", &mut Vec::new());
        assert!(matches!(unknown, Err(Ended::Strange(_))), "{unknown:?}");
    }

    #[test]
    fn a_refusal_is_told_by_its_first_line() {
        let said = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";
        let refused = Responses::default().take(said, &mut Vec::new());
        assert!(matches!(refused, Err(Ended::Refused(line)) if line == "HTTP/1.1 429 TOO MANY REQUESTS"));
        let endless = vec![b'x'; HEAD_BYTES_MAX + 1];
        let mut responses = Responses::default();
        let taken =
            responses.take(&endless, &mut Vec::new()).and_then(|_| responses.take(b"x", &mut Vec::new()));
        assert!(matches!(taken, Err(Ended::Strange(_))), "{taken:?}");
    }
}
