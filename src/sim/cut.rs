//! Where an answer ends early: before a text that the client does not want, or when no more tokens are allowed.

use super::reply::Piece;
use super::stream::LETTERS_PER_TOKEN;

/// Shortens an answer. True if it breaks off for want of tokens; a stop is an ordinary end.
pub(super) fn cut(pieces: &mut Vec<Piece>, stops: &[String], limit: Option<u64>) -> bool {
    stop(pieces, stops);
    let Some(mut left) = limit.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX)) else {
        return false;
    };
    for index in 0..pieces.len() {
        let Some(words) = words(&mut pieces[index]) else { continue };
        let tokens = words.chars().count().div_ceil(LETTERS_PER_TOKEN);
        if tokens <= left {
            left -= tokens;
            continue;
        }
        let letters = left.saturating_mul(LETTERS_PER_TOKEN);
        *words = words.chars().take(letters).collect();
        pieces.truncate(index + usize::from(left > 0));
        return true;
    }
    false
}

fn stop(pieces: &mut Vec<Piece>, stops: &[String]) {
    for index in 0..pieces.len() {
        let Piece::Message { text, .. } = &mut pieces[index] else { continue };
        if let Some(at) = stops.iter().filter_map(|stop| text.find(stop.as_str())).min() {
            text.truncate(at);
            pieces.truncate(index + 1);
            return;
        }
    }
}

/// What of a piece is made of tokens.
fn words(piece: &mut Piece) -> Option<&mut String> {
    match piece {
        Piece::Reasoning { summary: words, .. }
        | Piece::Message { text: words, .. }
        | Piece::Refusal(words)
        | Piece::Call { arguments: words, .. } => Some(words),
        Piece::Compaction(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Piece {
        Piece::Message { text: text.to_owned(), commentary: false, cited: false }
    }

    #[test]
    fn tokens_run_out_in_the_middle_of_a_piece_or_between_two() {
        let whole = [said("12345678"), said("ä2345")];
        for (limit, left, broken) in [
            (None, &whole[..], false),
            (Some(4), &whole[..], false),
            (Some(3), &[said("12345678"), said("ä234")][..], true),
            (Some(2), &[said("12345678")][..], true),
            (Some(1), &[said("1234")][..], true),
        ] {
            let mut pieces = whole.to_vec();
            assert_eq!((cut(&mut pieces, &[], limit), &pieces[..]), (broken, left), "{limit:?}");
        }
    }

    #[test]
    fn the_first_stop_ends_the_answer() {
        let stops = ["45".to_owned(), "ü".to_owned()];
        let mut pieces = vec![said("12"), said("3ü456"), said("7")];
        assert!(!cut(&mut pieces, &stops, Some(1000)));
        assert_eq!(pieces, [said("12"), said("3")]);
    }
}
