//! One viewer of the demo from its first byte to its last.
//!
//! Listening and sending run side by side in one task: input counts even while the viewer does
//! not read, and a viewer that does not read stops only its own frames. What it has asked for
//! since its last frame is one [`Asked`], however often it asked. Called by the server.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout};

use super::area::{Area, Size, Stale};
use super::canvas::Canvas;
use super::picture::Scene;
use super::protocol::{
    Abilities, Encoding, Malformed, Message, PixelFormat, Resized, SECURITY_NONE, VERSION, Version,
    put_extended_size, put_rectangle, put_update, server_init,
};
use super::screen::{Screen, Visit};
use super::{encode, protocol};

const NAME: &str = "vncgate demo";
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A viewer that takes nothing for so long is gone.
const STALL: Duration = Duration::from_mins(1);
/// Twenty frames a second at most: movement looks smooth and costs little.
const FRAME: Duration = Duration::from_millis(50);
/// What is gathered before it is written: one socket buffer's worth, about.
const CHUNK: usize = 64 * 1024;
/// Bytes of a copied text that the picture could show.
const EXCERPT: usize = 32;

/// Why a viewer's time is over.
#[derive(Debug, Error)]
pub(super) enum Ended {
    #[error("connection lost")]
    Io(#[from] io::Error),
    #[error("protocol broken")]
    Malformed(#[from] Malformed),
    #[error("viewer too slow")]
    Slow(#[from] Elapsed),
}

/// Serves a viewer until it leaves; it never ends well.
pub(super) async fn serve(mut stream: TcpStream, screen: &Screen) -> Result<Infallible, Ended> {
    stream.set_nodelay(true)?;
    timeout(HANDSHAKE, agree(&mut stream)).await??;
    let visit = screen.enter();
    let scene = screen.scene();
    let hello = server_init(scene.size(), NAME);
    timeout(HANDSHAKE, stream.write_all(&hello)).await??;
    let wants = Wants::default();
    let (from, to) = stream.split();
    let mut view = View::new(scene);
    tokio::select! {
        end = listen(BufReader::new(from), visit, &wants) => end,
        end = view.send_frames(to, screen, &wants) => end,
    }
}

/// Version, security and `ClientInit`. The shared flag changes nothing: all share.
async fn agree(stream: &mut TcpStream) -> Result<(), Ended> {
    stream.write_all(&VERSION).await?;
    let mut version = [0; 12];
    stream.read_exact(&mut version).await?;
    match Version::parse(version)? {
        Version::V3 => stream.write_u32(SECURITY_NONE.into()).await?,
        Version::V7 => choose_security(stream).await?,
        Version::V8 => {
            choose_security(stream).await?;
            stream.write_u32(0).await?;
        }
    }
    stream.read_u8().await?;
    Ok(())
}

async fn choose_security(stream: &mut TcpStream) -> Result<(), Ended> {
    stream.write_all(&[1, SECURITY_NONE]).await?;
    match stream.read_u8().await? {
        SECURITY_NONE => Ok(()),
        other => Err(Malformed::Security(other).into()),
    }
}

/// What a viewer asked for and has not been given.
#[derive(Debug, Default)]
struct Wants {
    asked: Mutex<Asked>,
    news: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    format: PixelFormat,
    abilities: Abilities,
    /// Where an update is wanted; none if the viewer waits for nothing.
    area: Option<Area>,
    /// Where it is wanted even if nothing changed.
    afresh: Option<Area>,
    resized: Option<Resized>,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            format: PixelFormat::OURS,
            abilities: Abilities::default(),
            area: None,
            afresh: None,
            resized: None,
        }
    }
}

impl Wants {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, incremental: bool, area: Area) {
        let mut asked = self.lock();
        if !incremental {
            asked.afresh = Some(asked.afresh.map_or(area, |other| area.union(other)));
        }
        asked.area = Some(asked.area.map_or(area, |other| area.union(other)));
        self.news.notify_one();
    }

    /// Waits until an update is wanted. Cancel-safe.
    async fn wanted(&self) {
        while self.lock().area.is_none() {
            self.news.notified().await;
        }
    }

    /// Takes what was asked; from here on the viewer waits for nothing.
    fn take(&self) -> Asked {
        let mut asked = self.lock();
        let taken = *asked;
        (asked.area, asked.afresh, asked.resized) = (None, None, None);
        taken
    }
}

async fn listen(
    mut from: BufReader<ReadHalf<'_>>,
    mut visit: Visit<'_>,
    wants: &Wants,
) -> Result<Infallible, Ended> {
    let mut buffer = [0; Message::LONGEST];
    loop {
        let kind = from.read_u8().await?;
        let length = Message::length(kind)?;
        let body = buffer.get_mut(..length).unwrap_or_default();
        from.read_exact(body).await?;
        match Message::parse(kind, body)? {
            Message::SetPixelFormat(format) => wants.lock().format = format,
            Message::SetEncodings(count) => {
                let abilities = read_abilities(&mut from, count).await?;
                wants.lock().abilities = abilities;
            }
            Message::UpdateRequest { incremental, area } => wants.update(incremental, area),
            Message::Key { down, keysym } => visit.key(down, keysym),
            Message::Pointer { buttons, x, y } => visit.pointer(x, y, buttons),
            Message::CutText(length) => {
                let (start, shown) = read_text(&mut from, length).await?;
                visit.clipboard(length, start.get(..shown).unwrap_or_default());
            }
            Message::SetDesktopSize { size, screens } => {
                skip(&mut from, u32::from(screens) * 16).await?;
                let granted = visit.resize(size);
                let answer = [Resized::Refused, Resized::Granted];
                wants.lock().resized = answer.get(usize::from(granted)).copied();
            }
        }
    }
}

async fn read_abilities(
    from: &mut BufReader<ReadHalf<'_>>,
    count: u16,
) -> Result<Abilities, Ended> {
    let mut abilities = Abilities::default();
    for _ in 0..count {
        abilities.add(from.read_i32().await?);
    }
    Ok(abilities)
}

/// Reads a text and drops it but for its start.
async fn read_text(
    from: &mut BufReader<ReadHalf<'_>>,
    length: u32,
) -> Result<([u8; EXCERPT], usize), Ended> {
    debug_assert!(length <= protocol::TEXT_LIMIT);
    let mut start = [0; EXCERPT];
    let shown = usize::try_from(length).map_or(EXCERPT, |length| length.min(EXCERPT));
    from.read_exact(start.get_mut(..shown).unwrap_or_default())
        .await?;
    let rest = u32::try_from(shown).map_or(0, |shown| length.saturating_sub(shown));
    skip(from, rest).await?;
    Ok((start, shown))
}

async fn skip(from: &mut BufReader<ReadHalf<'_>>, length: u32) -> Result<(), Ended> {
    let mut part = from.take(length.into());
    let skipped = tokio::io::copy_buf(&mut part, &mut tokio::io::sink()).await?;
    if skipped < u64::from(length) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(())
}

/// What a viewer has before its eyes.
struct View {
    size: Size,
    seen: Arc<Scene>,
    stale: Stale,
    size_told: bool,
    keys_offered: bool,
    canvas: Canvas,
    bytes: Vec<u8>,
}

impl View {
    fn new(scene: Arc<Scene>) -> Self {
        let size = scene.size();
        Self {
            size,
            seen: scene,
            stale: Stale::all(size),
            size_told: false,
            keys_offered: false,
            canvas: Canvas::new(Area::new(0, 0, 0, 0)),
            bytes: Vec::new(),
        }
    }

    async fn send_frames(
        &mut self,
        mut to: WriteHalf<'_>,
        screen: &Screen,
        wants: &Wants,
    ) -> Result<Infallible, Ended> {
        let mut due = Instant::now();
        loop {
            wants.wanted().await;
            sleep_until(due).await;
            let asked = wants.take();
            let runs = self.prepare(screen.scene(), &asked);
            if self.bytes.is_empty() {
                wants.update(true, asked.area.unwrap_or_else(|| self.size.into()));
            } else {
                self.send(runs, &asked, &mut to).await?;
            }
            due = Instant::now() + FRAME;
        }
    }

    /// Writes the head of the next update and returns the areas that belong in it. Nothing is
    /// written if there is nothing to tell.
    fn prepare(&mut self, scene: Arc<Scene>, asked: &Asked) -> Vec<Area> {
        self.bytes.clear();
        if self.follow(scene, asked.abilities) {
            self.put_new_size(asked);
            return Vec::new();
        }
        if let Some(area) = asked.afresh {
            self.stale.mark(area);
        }
        let runs = asked
            .area
            .map_or_else(Vec::new, |area| self.stale.take(area));
        let told = self.put_told(asked);
        let count = told.saturating_add(u16::try_from(runs.len()).unwrap_or(u16::MAX));
        if count > 0 {
            let told = std::mem::take(&mut self.bytes);
            put_update(count, &mut self.bytes);
            self.bytes.extend(told);
        }
        runs
    }

    /// Notes what differs in `scene`; whether the viewer must hear of a new size first.
    fn follow(&mut self, scene: Arc<Scene>, abilities: Abilities) -> bool {
        let resizable = abilities.desktop_size || abilities.extended_desktop_size;
        let resized = resizable && self.size != scene.size();
        if resized {
            self.size = scene.size();
        }
        if resized || self.seen.size() != scene.size() {
            self.stale = Stale::all(self.size);
        } else {
            scene
                .changes(&self.seen)
                .for_each(|area| self.stale.mark(area));
        }
        self.seen = scene;
        resized
    }

    /// An update of its own: viewers drop pixels that come with a new size.
    fn put_new_size(&mut self, asked: &Asked) {
        put_update(1, &mut self.bytes);
        if asked.abilities.extended_desktop_size {
            let why = asked.resized.unwrap_or(Resized::ByAnother);
            put_extended_size(self.size, why, &mut self.bytes);
            self.size_told = true;
        } else {
            put_rectangle(self.size.into(), Encoding::DesktopSize, &mut self.bytes);
        }
    }

    /// Writes the rectangles that are no pixels; returns their number.
    fn put_told(&mut self, asked: &Asked) -> u16 {
        let mut count = 0;
        let reason = asked.resized.is_some() || asked.afresh.is_some() || !self.size_told;
        if asked.abilities.extended_desktop_size && reason {
            let why = asked.resized.unwrap_or(Resized::Told);
            put_extended_size(self.size, why, &mut self.bytes);
            self.size_told = true;
            count += 1;
        }
        if asked.abilities.extended_keys && !self.keys_offered {
            let nowhere = Area::new(0, 0, 0, 0);
            put_rectangle(nowhere, Encoding::ExtendedKeys, &mut self.bytes);
            self.keys_offered = true;
            count += 1;
        }
        count
    }

    /// Sends what was prepared and then the pixels, area by area, so that a frame of any size
    /// takes the memory of one row of tiles.
    async fn send(
        &mut self,
        runs: Vec<Area>,
        asked: &Asked,
        to: &mut WriteHalf<'_>,
    ) -> Result<(), Ended> {
        let encoding = asked.abilities.pixels.unwrap_or_default();
        for area in runs {
            self.canvas.move_to(area);
            self.seen.draw(&mut self.canvas);
            put_rectangle(area, encoding, &mut self.bytes);
            match encoding {
                Encoding::Hextile => encode::hextile(&self.canvas, asked.format, &mut self.bytes),
                _ => encode::raw(&self.canvas, asked.format, &mut self.bytes),
            }
            if self.bytes.len() >= CHUNK {
                timeout(STALL, to.write_all(&self.bytes)).await??;
                self.bytes.clear();
            }
        }
        timeout(STALL, to.write_all(&self.bytes)).await??;
        Ok(())
    }
}
