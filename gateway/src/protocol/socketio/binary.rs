//! Bytes in what members tell each other: messages and signals are JSON, which has none, so an attachment stands there as
//! `{"_bytes":"BASE64"}`, and is an attachment again for clients that know them.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use memchr::memmem;
use serde_json::value::RawValue;

use super::decode::ATTACHMENTS_MAX;
use crate::protocol::json_depth;

/// The only key of an object that stands for bytes.
const KEY: &str = "_bytes";
/// The members of an object.
type Map<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

/// Deepest nesting that is looked through.
const DEPTH_MAX: usize = 64;

/// Puts attachments in the place of their placeholders.
pub fn inline(json: &str, attachments: &[Bytes]) -> String {
    let number = |map: &Map<'_>| -> Option<usize> {
        let is_placeholder = map.get("_placeholder").is_some_and(|is| is.get() == "true");
        is_placeholder.then(|| map.get("num")?.get().parse().ok()).flatten()
    };
    let mut found = Vec::new();
    find(json, json, &number, &mut found);
    let written = found.into_iter().filter_map(|(range, number)| {
        let bytes = attachments.get(number)?;
        Some((range, format!(r#"{{"{KEY}":"{}"}}"#, STANDARD.encode(bytes))))
    });
    replace(json, written)
}

/// Takes bytes out of a JSON text as attachments; nearly every text has none, and is returned as it is.
pub fn extract(json: &[u8]) -> (Cow<'_, [u8]>, Vec<Bytes>) {
    let none = (Cow::Borrowed(json), Vec::new());
    if memmem::find(json, KEY.as_bytes()).is_none() || json_depth(json) > DEPTH_MAX {
        return none;
    }
    let Ok(text) = std::str::from_utf8(json) else { return none };
    let content = |map: &Map<'_>| -> Option<Bytes> {
        let content: String = serde_json::from_str(map.get(KEY)?.get()).ok()?;
        (map.len() == 1).then(|| STANDARD.decode(content).ok().map(Bytes::from)).flatten()
    };
    let mut found = Vec::new();
    find(text, text, &content, &mut found);
    if found.is_empty() || found.len() > ATTACHMENTS_MAX {
        return none;
    }
    let placeholder = |number: usize| format!(r#"{{"_placeholder":true,"num":{number}}}"#);
    found.sort_by_key(|(range, _)| range.start);
    let ranges: Vec<_> = found.iter().map(|(range, _)| range.clone()).collect();
    let written = ranges.into_iter().enumerate().map(|(number, range)| (range, placeholder(number)));
    let text = replace(text, written);
    (Cow::Owned(text.into_bytes()), found.into_iter().map(|(_, bytes)| bytes).collect())
}

/// Where in `whole` the objects are of which `is` says something. Recursive: the depth was bounded before.
fn find<T>(whole: &str, part: &str, is: &dyn Fn(&Map<'_>) -> Option<T>, found: &mut Vec<(Range<usize>, T)>) {
    match part.as_bytes().first() {
        Some(b'[') => {
            for item in serde_json::from_str::<Vec<&RawValue>>(part).unwrap_or_default() {
                find(whole, item.get(), is, found);
            }
        }
        Some(b'{') => {
            let Ok(map) = serde_json::from_str::<Map<'_>>(part) else { return };
            if let Some(what) = is(&map) {
                let start = part.as_ptr().addr() - whole.as_ptr().addr();
                return found.push((start..start + part.len(), what));
            }
            for item in map.into_values() {
                find(whole, item.get(), is, found);
            }
        }
        _ => {}
    }
}

fn replace(text: &str, written: impl Iterator<Item = (Range<usize>, String)>) -> String {
    let mut written: Vec<_> = written.collect();
    written.sort_by_key(|(range, _)| range.start);
    let (mut out, mut from) = (String::with_capacity(text.len()), 0);
    for (range, new) in written {
        out.push_str(&text[from..range.start]);
        out.push_str(&new);
        from = range.end;
    }
    out.push_str(&text[from..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_become_text_and_attachments_again() {
        let json = r#"{"b": {"_placeholder":true,"num":1},"a":[1e400,{"num":0,"_placeholder":true}],"x":{}}"#;
        let attachments = [Bytes::from_static(&[1, 2, 3]), Bytes::from_static(b"")];
        let text = inline(json, &attachments);
        assert_eq!(text, r#"{"b": {"_bytes":""},"a":[1e400,{"_bytes":"AQID"}],"x":{}}"#);
        let (back, bytes) = extract(text.as_bytes());
        let expected =
            r#"{"b": {"_placeholder":true,"num":0},"a":[1e400,{"_placeholder":true,"num":1}],"x":{}}"#;
        assert_eq!(std::str::from_utf8(&back).unwrap(), expected);
        assert_eq!(bytes, [attachments[1].clone(), attachments[0].clone()], "in the order of their places");
    }

    #[test]
    fn what_only_looks_alike_is_left_alone() {
        for json in [
            r#"{"_bytes":1}"#,
            r#"{"_bytes":"*"}"#,
            r#"{"_bytes":"AQID","more":1}"#,
            r#""_bytes""#,
            "[\"_bytes\"]",
            "{}",
        ] {
            assert_eq!(extract(json.as_bytes()), (Cow::Borrowed(json.as_bytes()), Vec::new()), "{json}");
        }
        let many = format!("[{}]", [r#"{"_bytes":""}"#; ATTACHMENTS_MAX + 1].join(","));
        assert!(extract(many.as_bytes()).1.is_empty(), "clients take no more");
        let deep = format!("{}\"_bytes\"{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(extract(deep.as_bytes()).1.is_empty());
    }
}
