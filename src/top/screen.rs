//! The screen: totals above, sockets and turns below; what does not fit is left out from below.
//!
//! Draws what `view` says, and knows no figures of its own.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Gauge, Paragraph, Row, Table};
use tokio::time::Instant;

use super::view::{LETTERS, SOCKET, TURN, View};

/// Sockets that are listed at most; the rest are counted among the totals.
const SOCKETS: usize = 8;
/// The widths of the columns.
const SOCKET_WIDTHS: [u16; SOCKET.len()] = [6, 8, 12, 6, 32];
const TURN_WIDTHS: [u16; TURN.len()] = [6, 9, 5, 16, 9, 9, 9, 11, 8, 6, 9];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, now: Instant) {
    let totals = view.totals(now);
    let sockets = view.sockets(now);
    let shown = sockets.len().min(SOCKETS);
    let mut rest = frame.area();
    let [title, gauge, above] = [1, 1, rows(totals.len()) + 2].map(|height| cut(&mut rest, height));
    let middle = cut(&mut rest, if shown == 0 { 0 } else { rows(shown) + 2 });
    let height = rest.height.saturating_sub(1);
    let below = cut(&mut rest, height);
    let foot = rest;
    frame.render_widget(Line::styled(view.title(now), Modifier::BOLD), title);
    saved(frame, view, gauge);
    let lines: Vec<Line<'_>> = totals
        .iter()
        .map(|(name, value)| {
            Line::from(vec![Span::styled(format!("{name:12} "), Color::DarkGray), value.as_str().into()])
        })
        .collect();
    frame.render_widget(
        Paragraph::new(lines).block(Block::new().borders(Borders::TOP | Borders::BOTTOM)),
        above,
    );
    if shown > 0 {
        let block = Block::new().title_bottom(format!(" {LETTERS} ")).borders(Borders::BOTTOM);
        let rows = sockets.into_iter().take(shown).map(|row| Row::new(row.map(Cell::from)));
        frame.render_widget(Table::new(rows, SOCKET_WIDTHS).header(header(&SOCKET)).block(block), middle);
    }
    let turns = view.rows().take(usize::from(below.height)).map(|row| {
        let style = colour(&row);
        Row::new(row.map(Cell::from)).style(style)
    });
    frame.render_widget(Table::new(turns, TURN_WIDTHS).header(header(&TURN)), below);
    let words = view.warning().unwrap_or_else(|| "q leaves".to_owned());
    frame.render_widget(Line::styled(words, Color::DarkGray), foot);
}

/// The share saved, as a bar with its number.
fn saved(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let share = view.stats().and_then(|stats| stats.saved);
    let label =
        share.map_or_else(|| "nothing sent yet".to_owned(), |share| format!("{:.1} % saved", share * 100.0));
    let gauge = Gauge::default()
        .gauge_style(Style::new().fg(Color::Green).bg(Color::Black))
        .ratio(share.unwrap_or_default().clamp(0.0, 1.0))
        .label(label);
    frame.render_widget(gauge, area);
}

fn header<const N: usize>(names: &[&'static str; N]) -> Row<'static> {
    Row::new(*names).style(Modifier::BOLD)
}

/// Colour says nothing that is not written as well.
fn colour(row: &[String; TURN.len()]) -> Style {
    let [_, _, plan, .., outcome] = row;
    match (plan.as_str(), outcome.as_str()) {
        (_, "failed" | "lagging") => Style::new().fg(Color::Red),
        (_, "abandoned") => Style::new().fg(Color::DarkGray),
        ("delta", _) => Style::new().fg(Color::Green),
        ("http", _) => Style::new().fg(Color::Yellow),
        _ => Style::new(),
    }
}

/// The next lines of the screen, as far as there are any: what stands above comes first.
fn cut(rest: &mut Rect, height: u16) -> Rect {
    let part = Rect { height: height.min(rest.height), ..*rest };
    *rest = Rect { y: part.bottom(), height: rest.height - part.height, ..*rest };
    part
}

fn rows(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
