use super::line::{Over, Socket};
use super::{Finding, Found, Visit, words};

/// Asks for the screen, in the one encoding that every server has, up to its first rectangle.
pub(super) async fn look(visit: &mut Visit) -> Finding {
    let page = visit.page()?;
    let Some(socket) = &mut visit.socket else {
        if visit.console.is_none() {
            return Ok(visit.left());
        }
        return Ok(Found::Nothing("no console is open".to_owned()));
    };
    let seen = first_pixels(socket).await;
    let (width, height) = seen.map_err(|over| words::over(over, &page))?;
    Ok(Found::Fine(format!("a screen of {width}x{height}")))
}

async fn first_pixels(socket: &mut Socket) -> Result<(u16, u16), Over> {
    // Shared, so that nobody else is thrown out.
    socket.send(&[1]).await?;
    let init = socket.read(24).await?;
    let (width, height) = (be16(&init, 0), be16(&init, 2));
    let name = be32(&init, 20);
    let _name = socket.read(name).await?;
    socket.send(&[2, 0, 0, 1, 0, 0, 0, 0]).await?;
    let mut request = vec![3, 0, 0, 0, 0, 0];
    request.extend(width.to_be_bytes());
    request.extend(height.to_be_bytes());
    socket.send(&request).await?;
    loop {
        let kind = socket.read(1).await?;
        match kind.first() {
            Some(0) => {
                let count = be16(&socket.read(3).await?, 1);
                if count > 0 {
                    // the rectangle's place, its encoding, and a byte of a pixel at least
                    let _pixels = socket.read(12 + 1).await?;
                    return Ok((width, height));
                }
            }
            Some(1) => {
                let colours = be16(&socket.read(5).await?, 3);
                let _colours = socket.read(usize::from(colours).saturating_mul(6)).await?;
            }
            Some(3) => {
                let length = be32(&socket.read(7).await?, 3);
                let _text = socket.read(length).await?;
            }
            // a bell
            _ => {}
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u16::from_be_bytes(found.copied().unwrap_or_default())
}

fn be32(bytes: &[u8], at: usize) -> usize {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    let number = u32::from_be_bytes(found.copied().unwrap_or_default());
    usize::try_from(number).unwrap_or(usize::MAX)
}
